#include <stdio.h>

int main(void) {
    puts("made by foo");
    return 0;
}

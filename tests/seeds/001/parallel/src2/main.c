#include <stdio.h>

int main(void) {
    puts("made by bar");
    return 0;
}

#include <stdio.h>

int main(void) {
    printf("bar %ld %ld\n", (long)BEGAN, (long)ENDED);
    return 0;
}

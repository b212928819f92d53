#include <stdio.h>

int main(void) {
    printf("foo %ld %ld\n", (long)BEGAN, (long)ENDED);
    return 0;
}

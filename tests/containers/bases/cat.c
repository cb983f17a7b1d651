#include <stdio.h>

/* Like cat, for the C library that it is linked with. */
int main(int count, char **paths)
{
    for (int each = 1; each < count; each++) {
        FILE *file = fopen(paths[each], "r");
        if (!file)
            return 1;
        for (int octet; (octet = getc(file)) != EOF;)
            putchar(octet);
        fclose(file);
    }
    return 0;
}

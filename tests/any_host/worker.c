/* The program that workers are started from: it opens the same library, and serves. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    const char *other = getenv("WORKER_LIBRARY");
    void *library = dlopen(other ? other : getenv("HOST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    ((void (*)(void))dlsym(library, "host_init"))();
    fprintf(stderr, "this program serves pools of other programs only\n");
    return 4;
}

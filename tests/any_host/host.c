/* A program that is not Rust's. Swathe is in a library that it opens; the same program starts its workers, too. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double own(double x) { return 4 * x; }

int main(int argc, char **argv) {
    void *library = dlopen(getenv("HOST_LIBRARY"), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    const char *act = argc > 1 ? argv[1] : "";
    if (strcmp(act, "uninitialized") != 0)
        ((void (*)(void))dlsym(library, "host_init"))();
    const char *worker = argc > 2 && argv[2][0] ? argv[2] : NULL;
    if (strcmp(act, "build-id") == 0) {
        ((void (*)(void))dlsym(library, "host_build_id"))();
        return 0;
    }
    if (strcmp(act, "run") == 0)
        return ((int (*)(const char *, const char *, double (*)(double)))dlsym(library, "host_run"))(worker, argv[3], own);
    return ((int (*)(const char *))dlsym(library, "host_build"))(worker);
}

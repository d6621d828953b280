/* The OpenMP peer: one kernel a process. For every line on standard input it runs the kernel and answers
 * "<nanoseconds a call> <digest>". Between the lines its team is dissolved, so that no thread of it spins while others
 * are measured; the calls before the measured ones bring it back.
 *
 * Usage: kernels KERNEL N CALLS, where N is the size as the harness gives it. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double *in, *out;   /* stream_square, small_map */
static double *column[5];  /* black_scholes: spot, strike, years, rate, volatility */
static uint16_t *pixels;   /* mandelbrot_rows */
static long n;

enum { WIDTH = 1024, LIMIT = 1000 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *room(size_t bytes) {
    void *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!memory) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

/* As `digest` of the harness. */
static double digest(const double *x, long count) {
    long step = count >> 22 | 1;
    double sum = 0;
    for (long i = 0; i < count; i += step) sum += x[i] * (double)(i % 1009 + 1);
    return sum;
}

static void square(void) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) out[i] = in[i] * in[i];
}

static void tiny(void) {
#pragma omp parallel for schedule(dynamic, 1)
    for (long i = 0; i < n; i++) __asm__ volatile("" ::: "memory");
}

/* Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17. */
static inline double normal(double x) {
    double a = fabs(x), k = 1.0 / (1.0 + 0.2316419 * a);
    double p = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))));
    double tail = 0.3989422804014327 * exp(-0.5 * a * a) * p;
    return x < 0 ? tail : 1.0 - tail;
}

static void price(void) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) {
        double s = column[0][i], k = column[1][i], t = column[2][i], r = column[3][i], v = column[4][i];
        double root = v * sqrt(t), d1 = (log(s / k) + (r + 0.5 * v * v) * t) / root, d2 = d1 - root;
        double paid = k * exp(-r * t), call = s * normal(d1) - paid * normal(d2);
        out[2 * i] = call;
        out[2 * i + 1] = call - s + paid;
    }
}

static void prepare_price(void) {
    static const uint64_t seed[5] = {1, 2, 3, 4, 5};
    static const double low[5] = {5.0, 1.0, 0.25, 0.01, 0.05}, high[5] = {30.0, 100.0, 10.0, 0.05, 0.5};
    for (int c = 0; c < 5; c++) {
        column[c] = room(sizeof(double) * (size_t)n);
#pragma omp parallel for schedule(static)
        for (long i = 0; i < n; i++) {
            uint64_t bits = ((uint64_t)i + (seed[c] << 40)) * 0x9E3779B97F4A7C15u;
            bits = (bits ^ bits >> 32) * 0xD6E8FEB86659FD93u;
            column[c][i] = low[c] + (high[c] - low[c]) * ((double)(bits >> 11) * 0x1p-53);
        }
    }
    out = room(2 * sizeof(double) * (size_t)n);
}

static void mandelbrot(void) {
#pragma omp parallel for schedule(dynamic)
    for (long row = 0; row < n; row++) {
        double y0 = -1.25 + 2.5 * (double)row / (double)n;
        for (int i = 0; i < WIDTH; i++) {
            double x0 = -2.0 + 2.5 * i / WIDTH, x = 0, y = 0, xx = 0, yy = 0;
            int steps = 0;
            while (steps < LIMIT && xx + yy <= 4.0) {
                y = 2.0 * x * y + y0;
                x = xx - yy + x0;
                xx = x * x;
                yy = y * y;
                steps++;
            }
            pixels[row * WIDTH + i] = (uint16_t)steps;
        }
    }
}

static double answer(const char *kernel) {
    if (!strcmp(kernel, "stream_square") || !strcmp(kernel, "small_map")) return digest(out, n);
    if (!strcmp(kernel, "black_scholes")) return digest(out, 2 * n);
    double sum = (double)n;
    if (!strcmp(kernel, "mandelbrot_rows")) {
        sum = 0;
        for (long i = 0; i < n * WIDTH; i++) sum += pixels[i];
    }
    return sum;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const char *kernel = argv[1];
    n = atol(argv[2]);
    long calls = atol(argv[3]);
    void (*run)(void) = NULL;
    if (!strcmp(kernel, "stream_square") || !strcmp(kernel, "small_map")) {
        in = room(sizeof(double) * (size_t)n);
        out = room(sizeof(double) * (size_t)n);
        /* Pages belong to the thread that touches them first. */
#pragma omp parallel for schedule(static)
        for (long i = 0; i < n; i++) in[i] = (double)(i % 4093) * 0.5;
        run = square;
    } else if (!strcmp(kernel, "tiny_chunks")) {
        run = tiny;
    } else if (!strcmp(kernel, "black_scholes")) {
        prepare_price();
        run = price;
    } else if (!strcmp(kernel, "mandelbrot_rows")) {
        pixels = room(sizeof(uint16_t) * WIDTH * (size_t)n);
        run = mandelbrot;
    }
    if (!run) return 2;
    omp_pause_resource_all(omp_pause_soft);
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        long warm = calls / 10 + 1;
        for (long i = 0; i < warm; i++) run();
        double begun = now();
        for (long i = 0; i < calls; i++) run();
        double each = (now() - begun) / (double)calls;
        omp_pause_resource_all(omp_pause_soft);
        printf("%.17g %.17g\n", each, answer(kernel));
        fflush(stdout);
    }
    return 0;
}

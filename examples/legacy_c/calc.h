/* calc: evaluates arithmetic such as "2 * (3 + 4) / 7", the way programs did when a process had one thread.
 *
 * All state is static: one evaluation at a time in a process. Every evaluation keeps memory that is never given back. */
#ifndef CALC_H
#define CALC_H

/* The value of an expression of numbers, + - * / and parentheses. Sets calc_error. */
double calc_evaluate(const char *text);

/* What was wrong with the last expression, or "" if nothing was. Overwritten by the next evaluation. */
const char *calc_error(void);

#endif

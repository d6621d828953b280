/* A library that is opened when the workers run already. */
static const volatile double factor = 3;

double kernel(double x) { return factor * x; }

void task(void *call) { (void)call; }

/* bce.h must compile as C++. */
#include "../bce.h"

int main() { return bce_isa_name(0) == nullptr; }

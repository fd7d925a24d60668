/* Included where floating-point code begins: a product and a sum become an fma only where the source says fma(), else the
   bits would depend on the machine; and loops are optimised whatever the build's flags are. */

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("O3", "fp-contract=off", "no-math-errno", "no-trapping-math")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

/* What the package's two source files share. */

#ifndef BCEBRIDGE_H
#define BCEBRIDGE_H

#include <Rinternals.h>

#include "bce.h"

#ifdef __cplusplus
extern "C" {
#endif

bce_reduction reduction_of(SEXP name);

/* bce_evaluate, that the user can interrupt: after BCE_INTERRUPTED the caller continues the jump with R_ContinueUnwind(token),
   which R_MakeUnwindCont() has made. */
bce_status compute_until_interrupted(bce_arguments *arguments, const bce_results *results, SEXP token, char *message);

/* lantern.cpp says what these do. */
SEXP lantern_names(void);
SEXP lantern_open(SEXP addresses, SEXP templates);
SEXP lantern_loss(SEXP input, SEXP target, SEXP weight, SEXP pos_weight, SEXP label_smoothing, SEXP reduction, SEXP gradient);
SEXP lantern_set_callback(SEXP callback);
SEXP lantern_request(void);
SEXP lantern_reply(SEXP gradients);

#ifdef __cplusplus
}
#endif

#endif

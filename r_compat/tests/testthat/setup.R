# CRAN allows two.
bce_num_threads(min(bce_num_threads(), 2))

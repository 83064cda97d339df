// The same as pinned-map.c, where the name is taken by a map of other parameters.
#include "pinned-map.c"

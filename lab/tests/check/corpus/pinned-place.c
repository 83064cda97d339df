// The same as pinned-map.c, where check.toml says where its map is pinned, and another object has left one of the same parameters.
#include "pinned-map.c"

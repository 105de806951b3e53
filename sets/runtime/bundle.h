// The bundle of a container: its config.json, as the OCI's runtime specification describes it.
#pragma once

// Give the container of this bundle host ids of its own: claim them for `state`, mount its files with them, and change
// config.json accordingly.
void separate(const char *bundle, const char *state);

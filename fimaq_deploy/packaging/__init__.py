"""A checked build in the forms that others take: Triton, a tar, a hub's folder, an OCI image layout. No torch."""

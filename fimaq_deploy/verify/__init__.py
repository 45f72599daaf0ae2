"""Whether what runs is what was learned: numbers block by block, and kernels of a compiled plan."""

"""What a learning step does to large tensors, in one pass over memory each way: Triton kernels for GPUs.

On a GPU a step is bound by memory and by the number of its kernels. Each module here does what a handful of torch's
operators do elsewhere, to the same numbers but for the order of sums, and is asked for where `device.fuses` says so.
Importing one needs Triton, which comes with torch's CUDA builds. `TRITON_INTERPRET=1` runs the kernels without a GPU.
"""

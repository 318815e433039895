// Products by tensor cores, for the kernels of `implicit.cu` and `summed.cu`. Every operand is rounded to TensorFloat-32 where
// it is written to shared memory. Sums are kept in float32; tensor cores round them towards zero, always.

#ifdef TENSOR_CORES
#ifdef __CUDACC__
__device__ inline unsigned tf32(float x) {
    unsigned rounded;
    asm volatile("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return rounded;
}

// Add to sum (16 x 8) the product of a (16 x 8) and b (8 x 8), which a warp's lanes hold together: lane 4 * i + j has
// a[i, j], a[i + 8, j], a[i, j + 4], a[i + 8, j + 4]; b[j, i], b[j + 4, i]; sum[i, 2j], sum[i, 2j + 1], and those 8 below.
__device__ inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Begin to copy neighbouring numbers to shared memory, or zeros.
template <int COUNT> __device__ inline void begin_copy(float* to, const float* from, bool taken) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::
        "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "n"(4 * COUNT), "r"(taken ? 4 * COUNT : 0) : "memory");
}
__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait for all groups of copies of this thread but the last one.
__device__ inline void wait_for_all_but_one() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
#endif

// Round a number to TensorFloat-32.
__device__ inline float stored(float x) { return __uint_as_float(tf32(x)); }

// Neighbouring numbers that are moved at once.
template <int COUNT> struct __align__(4 * COUNT) Few { float value[COUNT]; };
template <int COUNT> __device__ inline void round_few(float* at) {
    Few<COUNT> few = *reinterpret_cast<Few<COUNT>*>(at);
#pragma unroll
    for (int v = 0; v < COUNT; ++v) few.value[v] = stored(few.value[v]);
    *reinterpret_cast<Few<COUNT>*>(at) = few;
}
#endif

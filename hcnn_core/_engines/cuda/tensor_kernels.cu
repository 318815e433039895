// Products by tensor cores, for the kernels of `implicit.cu` and `summed.cu`. Every operand is rounded to TensorFloat-32, or,
// in three PASSES, split into two such numbers; errors are then about those of float32. Sums are kept in float32. Tensor
// cores round sums towards zero, always. Over many products these errors add up to more than three PASSES gain, so sums are
// added to totals now and then.

#ifdef PASSES
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

constexpr int PARTS = PASSES == 3 ? 2 : 1;

template <int COUNT> struct Operand { unsigned part[PARTS][COUNT]; };

// Set number i of an operand.
template <int COUNT> __device__ inline void put(Operand<COUNT>& to, int i, float x) {
    to.part[0][i] = tf32(x);
    if (PARTS == 2) to.part[PARTS - 1][i] = tf32(x - __uint_as_float(to.part[0][i]));
}

// A number as tensor cores take it: rounded when it was written, unless they take it in parts.
__device__ inline float stored(float x) { return PASSES == 1 ? __uint_as_float(tf32(x)) : x; }
template <int COUNT> __device__ inline void take(Operand<COUNT>& to, int i, float x) {
    if (PASSES == 1) to.part[0][i] = __float_as_uint(x);
    else put(to, i, x);
}

// Neighbouring numbers that are moved at once.
template <int COUNT> struct __align__(4 * COUNT) Few { float value[COUNT]; };
template <int COUNT> __device__ inline void round_few(float* at) {
    if (PASSES > 1) return;
    Few<COUNT> few = *reinterpret_cast<Few<COUNT>*>(at);
#pragma unroll
    for (int v = 0; v < COUNT; ++v) few.value[v] = stored(few.value[v]);
    *reinterpret_cast<Few<COUNT>*>(at) = few;
}

__device__ inline void multiply_add(float (&sum)[4], const Operand<4>& a, const Operand<2>& b) {
    if (PARTS == 2) {
        mma(sum, a.part[PARTS - 1], b.part[0]);
        mma(sum, a.part[0], b.part[PARTS - 1]);
    }
    mma(sum, a.part[0], b.part[0]);
}

// Most products of tensor cores, of all passes, after which a sum is added to its total.
constexpr int MOST_IN_SUM = 64;

// Add sums to totals, and clear the sums.
template <int M, int N> __device__ inline void flush(float (&total)[M][N][4], float (&sum)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                total[m][n][e] += sum[m][n][e];
                sum[m][n][e] = 0;
            }
}

#endif

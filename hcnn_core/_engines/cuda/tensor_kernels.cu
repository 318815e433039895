// `apply` and `correlate` by tensor cores, in place of those of `kernels.cu`: the same arguments, the same blocks. Every
// operand is rounded to TensorFloat-32, or, in three PASSES, split into two such numbers; errors are then about those of
// float32. Sums are kept in float32. Tensor cores round sums towards zero, always. Over many products these errors add up
// to more than three PASSES gain, so sums are added to totals now and then.

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

// Begin to copy a number to shared memory, or a zero.
__device__ inline void begin_copy(float* to, const float* from, bool taken) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::
        "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(taken ? 4 : 0) : "memory");
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

#if defined TALL && defined PASSES
extern "C" __global__ void __launch_bounds__(THREADS) apply(
    Reals x, Reals matrices, Table offsets, Table sources, Table targets, Reals bias,
    Target out, int rows, int columns, int positions, int run, long long x_entry, long long matrix_entry,
    long long out_entry, long long out_row
) {
    constexpr int M = TALL / 16, N = WIDE * LANES / 8, PITCH = ROW_TILE + 8;
    __shared__ float factors[DEPTH][PITCH];
    __shared__ int offset[DEPTH];
    const int lane = threadIdx.x % LANES, i = lane / 4, j = lane % 4;
    const int first_row = blockIdx.z * ROW_TILE;
    const int begin = (blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES) * WIDE * LANES;
    const real* entry = x + blockIdx.y * x_entry;

    int place[N];
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const int p = min(begin + n * 8 + i, positions - 1);
        place[n] = sources[p / run] + p % run;
    }
    float sum[M][N][4] = {}, total[M][N][4] = {};
    for (int k0 = 0; k0 < columns; k0 += DEPTH) {
        if (PASSES == 3 && k0 && k0 % (MOST_IN_SUM / (DEPTH / 8 * PASSES) * DEPTH) == 0) flush(total, sum);
        const int depth = min(DEPTH, columns - k0);
        __syncthreads();
        for (int t = threadIdx.x; t < DEPTH * ROW_TILE; t += THREADS) {
            const int row = first_row + t % ROW_TILE, k = t / ROW_TILE;
            const long long at = blockIdx.y * matrix_entry + (long long)(k0 + k) * rows + row;
            factors[k][t % ROW_TILE] = k < depth && row < rows ? matrices[at] : real(0);
        }
        for (int k = threadIdx.x; k < depth; k += THREADS) offset[k] = offsets[k0 + k];
        __syncthreads();
        for (int k = 0; k < depth; k += 8) {
            Operand<4> a[M];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) put(a[m], e, factors[k + j + e / 2 * 4][m * 16 + i + e % 2 * 8]);
            const bool near = k + j < depth, far = k + j + 4 < depth;
            const int to_near = offset[near ? k + j : 0], to_far = offset[far ? k + j + 4 : 0];  // always inside x
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const real from_near = entry[place[n] + to_near], from_far = entry[place[n] + to_far];
                Operand<2> b;
                put(b, 0, near ? from_near : real(0));
                put(b, 1, far ? from_far : real(0));
#pragma unroll
                for (int m = 0; m < M; ++m) multiply_add(sum[m][n], a[m], b);
            }
        }
    }
    if (PASSES == 3) flush(sum, total);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            const int p = begin + n * 8 + 2 * j + c;
            if (p >= positions) continue;
            real* to = out + blockIdx.y * out_entry + targets[p / run] + p % run;
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int row = first_row + m * 16 + i + half * 8;
                    const real value = sum[m][n][half * 2 + c];
                    if (row < rows) to[row * out_row] = bias ? elu(value + bias[row]) : value;
                }
        }
}

extern "C" __global__ void __launch_bounds__(THREADS) correlate(
    Reals g, Reals x, Table offsets, Table g_lines, Table x_lines, Target parts,
    int rows, int columns, int positions, int run, long long g_entry, long long g_row, long long x_entry
) {
    constexpr int PITCH = LANES + PACK, G_TILE = 4 * G_TALL, X_TILE = 8 * X_TALL;
    constexpr int M = G_TILE / 16, N = X_TILE / 8;
    SHARED_MEMORY;
    const int g_tiles = (rows + G_TILE - 1) / G_TILE;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int first_row = blockIdx.z % g_tiles * G_TILE, first_k = blockIdx.z / g_tiles * X_TILE;
    real (*taken_g)[PITCH] = reinterpret_cast<real (*)[PITCH]>(shared_memory) + warp * (G_TILE + X_TILE);
    real (*taken_x)[PITCH] = taken_g + G_TILE;

    float sum[M][N][4] = {}, total[M][N][4] = {};
    int tiles = 0;
    for (int begin = blockIdx.x * THREADS; begin < positions; begin += gridDim.x * THREADS) {
        if (PASSES == 3 && ++tiles % (MOST_IN_SUM / (LANES / 8 * PASSES)) == 0) flush(total, sum);
        take_tiles<G_TILE, X_TILE>(
            taken_g, taken_x, g, x, offsets, g_lines, x_lines, first_row, rows, first_k, columns, begin, positions, run,
            g_entry, g_row, x_entry
        );
        for (int q = 0; q < LANES; q += 8) {
            Operand<4> a[M];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) put(a[m], e, taken_g[m * 16 + i + e % 2 * 8][q + j + e / 2 * 4]);
#pragma unroll
            for (int n = 0; n < N; ++n) {
                Operand<2> b;
                put(b, 0, taken_x[n * 8 + i][q + j]);
                put(b, 1, taken_x[n * 8 + i][q + j + 4]);
#pragma unroll
                for (int m = 0; m < M; ++m) multiply_add(sum[m][n], a[m], b);
            }
        }
    }
    if (PASSES == 3) flush(sum, total);
    __syncthreads();
    real* own = reinterpret_cast<real*>(shared_memory) + warp * G_TILE * X_TILE;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) own[(n * 8 + 2 * j + e % 2) * G_TILE + m * 16 + i + e / 2 * 8] = sum[m][n][e];
    write_part<G_TILE, X_TILE>(reinterpret_cast<real*>(shared_memory), parts, first_row, rows, first_k, columns);
}
#endif

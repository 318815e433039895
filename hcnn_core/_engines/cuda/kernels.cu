// A convolution's work on a GPU: the DFTs by matrices, and the products with the taps around every position.
//
// Arrays are rows of positions; a row's elements lie next to each other, and neighbouring threads take neighbouring
// positions. Row r of channel c is row r * channels + c. `launch.py` compiles this text for each set of sizes, which it
// writes before it as macros. There are no atomics: sums have one order, so results repeat bit for bit.

constexpr int LANES = 32;

using Reals = const real* __restrict__;
using Table = const int* __restrict__;
using Target = real* __restrict__;

#ifndef SHARED_MEMORY
#define SHARED_MEMORY extern __shared__ __align__(16) unsigned char shared_memory[]
#endif

// The sources of extended positions: a place >= 0; -1 for a zero; -2 - place for a periodic copy. Without places
// positions are not extended.
__device__ inline long long source_of(const int* places, int position, int batch) {
    if (!places) return position;
    const int place = places[position / batch];
    return place == -1 ? -1 : (long long)(place < -1 ? -2 - place : place) * batch + position % batch;
}

__device__ inline real elu(real x) { return x > 0 ? x : EXPM1(x); }

// Add up the numbers of a block's threads, to those of the first `least`.
template <int N, typename T> __device__ inline void fold(T (&part)[N], int least = 1) {
    for (int half = N / 2; half >= least; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
}

// The derivative of ELU, from its value.
__device__ inline real slope(real answer) { return answer > 0 ? real(1) : answer + 1; }

#ifdef EXTEND
// Write rows of x, extended by their boundary, to out; of x_rows rows, those that follow repeat the first. With answers, the results of an ELU, x is their cotangent. It is
// multiplied by the ELU's derivative, and sums[block, row] receive the sums of the products, without periodic copies.
extern "C" __global__ void __launch_bounds__(EXTEND) extend(
    Reals x, Table places, Reals answers, Target sums, Target out, int positions, int batch, int x_rows, long long x_row
) {
    const int p = blockIdx.x * EXTEND + threadIdx.x;
    const long long source = p < positions ? source_of(places, p, batch) : -1;
    real value = source < 0 ? real(0) : x[blockIdx.y % x_rows * x_row + source];
    if (answers && source >= 0) value *= slope(answers[blockIdx.y * x_row + source]);
    if (p < positions) out[(long long)blockIdx.y * positions + p] = value;
    if (!sums) return;
    __shared__ real part[EXTEND];
    part[threadIdx.x] = p < positions && (!places || places[p / batch] >= 0) ? value : real(0);
    fold(part);
    if (threadIdx.x == 0) sums[(long long)blockIdx.x * gridDim.y + blockIdx.y] = part[0];
}
#endif

#ifdef TALL
// Load tiles of `correlate` to shared memory: G_TILE rows of g and X_TILE taps of x at each lane's position, counted from
// `begin`; zeros beyond the ends.
template <int G_TILE, int X_TILE, int PITCH>
__device__ void take_tiles(
    real (*taken_g)[PITCH], real (*taken_x)[PITCH], Reals g, Reals x, Table offsets, Table g_lines, Table x_lines,
    int first_row, int rows, int first_k, int columns, int begin, int positions, int run,
    long long g_entry, long long g_row, long long x_entry
) {
    const int lane = threadIdx.x % LANES;
    const int p = begin + threadIdx.x;
    const bool there = p < positions;
    const int line = there ? p / run : 0, within = there ? p % run : 0;
    const real* from_g = g + blockIdx.y * g_entry + g_lines[line] + within;
    const real* from_x = x + blockIdx.y * x_entry + x_lines[line] + within;
    __syncthreads();
    for (int r = 0; r < G_TILE; ++r)
        taken_g[r][lane] = there && first_row + r < rows ? from_g[(first_row + r) * g_row] : real(0);
    for (int k = 0; k < X_TILE; ++k)
        taken_x[k][lane] = there && first_k + k < columns ? from_x[offsets[first_k + k]] : real(0);
    __syncthreads();
}

// Write the part of a block: the sums of its warps, which follow each other in memory as (X_TILE, G_TILE).
template <int G_TILE, int X_TILE>
__device__ void write_part(const real* of_warps, Target parts, int first_row, int rows, int first_k, int columns) {
    real* to = parts + ((long long)blockIdx.x * gridDim.y + blockIdx.y) * columns * rows;
    __syncthreads();
    for (int i = threadIdx.x; i < G_TILE * X_TILE; i += THREADS) {
        const int k = first_k + i / G_TILE, row = first_row + i % G_TILE;
        real total = 0;
        for (int w = 0; w < THREADS / LANES; ++w) total += of_warps[w * G_TILE * X_TILE + i];
        if (k < columns && row < rows) to[(long long)k * rows + row] = total;
    }
}

// Write out[entry, row, p] = sum over k of matrices[entry, k, row] * x[entry, place of p + offsets[k]], each entry and
// each block of ROW_TILE rows by itself. Positions come in lines of `run`, found by sources in x and by targets in out.
extern "C" __global__ void __launch_bounds__(THREADS) apply(
    Reals x, Reals matrices, Table offsets, Table sources, Table targets, Reals bias,
    Target out, int rows, int columns, int positions, int run, long long x_entry, long long matrix_entry,
    long long out_entry, long long out_row
) {
    __shared__ __align__(16) real factors[DEPTH][ROW_TILE];
    __shared__ int offset[DEPTH];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int tile_row = warp % (ROW_TILE / TALL) * TALL, first_row = blockIdx.z * ROW_TILE;
    const int group = blockIdx.x * (THREADS / LANES / (ROW_TILE / TALL)) + warp / (ROW_TILE / TALL);
    const int begin = group * WIDE * LANES + lane;

    const real* from[WIDE];
    for (int v = 0; v < WIDE; ++v) {
        const int p = min(begin + v * LANES, positions - 1);
        from[v] = x + blockIdx.y * x_entry + sources[p / run] + p % run;
    }
    real sum[TALL][WIDE] = {};
    for (int k0 = 0; k0 < columns; k0 += DEPTH) {
        const int depth = min(DEPTH, columns - k0);
        __syncthreads();
        for (int i = threadIdx.x; i < depth * ROW_TILE; i += THREADS) {
            const int row = first_row + i % ROW_TILE;
            const long long k = k0 + i / ROW_TILE;
            const long long at = blockIdx.y * matrix_entry + k * rows + row;
            factors[i / ROW_TILE][i % ROW_TILE] = row < rows ? matrices[at] : real(0);
        }
        for (int k = threadIdx.x; k < depth; k += THREADS) offset[k] = offsets[k0 + k];
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < depth; ++k) {
            real taken[WIDE];
            for (int v = 0; v < WIDE; ++v) taken[v] = from[v][offset[k]];
            for (int r = 0; r < TALL; r += PACK) {
                const pack of_rows = *reinterpret_cast<const pack*>(&factors[k][tile_row + r]);
                for (int i = 0; i < PACK; ++i)
                    for (int v = 0; v < WIDE; ++v) sum[r + i][v] += of_rows.value[i] * taken[v];
            }
        }
    }
#pragma unroll
    for (int v = 0; v < WIDE; ++v) {
        const int p = begin + v * LANES;
        if (p >= positions) continue;
        real* to = out + blockIdx.y * out_entry + targets[p / run] + p % run;
#pragma unroll
        for (int r = 0; r < TALL; ++r) {
            const int row = first_row + tile_row + r;
            if (row < rows) to[row * out_row] = bias ? elu(sum[r][v] + bias[row]) : sum[r][v];
        }
    }
}

// Write parts[part, entry, k, row], the sums of g[entry, row, p] * x[entry, place of p + offsets[k]] over the positions
// of each part: every block is one, whose warps take LANES positions at a time and are added up at the end.
extern "C" __global__ void __launch_bounds__(THREADS) correlate(
    Reals g, Reals x, Table offsets, Table g_lines, Table x_lines, Target parts,
    int rows, int columns, int positions, int run, long long g_entry, long long g_row, long long x_entry
) {
    constexpr int PITCH = LANES + PACK, ACROSS = 8, DOWN = LANES / ACROSS;
    constexpr int G_TILE = DOWN * G_TALL, X_TILE = ACROSS * X_TALL;
    SHARED_MEMORY;
    const int g_tiles = (rows + G_TILE - 1) / G_TILE;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int first_row = blockIdx.z % g_tiles * G_TILE, first_k = blockIdx.z / g_tiles * X_TILE;
    const int down = lane / ACROSS * G_TALL, across = lane % ACROSS * X_TALL;
    real (*taken_g)[PITCH] = reinterpret_cast<real (*)[PITCH]>(shared_memory) + warp * (G_TILE + X_TILE);
    real (*taken_x)[PITCH] = taken_g + G_TILE;

    real sum[G_TALL][X_TALL] = {};
    for (int begin = blockIdx.x * THREADS; begin < positions; begin += gridDim.x * THREADS) {
        take_tiles<G_TILE, X_TILE>(
            taken_g, taken_x, g, x, offsets, g_lines, x_lines, first_row, rows, first_k, columns, begin, positions, run,
            g_entry, g_row, x_entry
        );
        for (int q = 0; q < LANES; q += PACK) {
            pack of_g[G_TALL];
            for (int r = 0; r < G_TALL; ++r) of_g[r] = *reinterpret_cast<const pack*>(&taken_g[down + r][q]);
            for (int k = 0; k < X_TALL; ++k) {
                const pack of_x = *reinterpret_cast<const pack*>(&taken_x[across + k][q]);
                for (int r = 0; r < G_TALL; ++r)
                    for (int i = 0; i < PACK; ++i) sum[r][k] += of_g[r].value[i] * of_x.value[i];
            }
        }
    }
    __syncthreads();
    real* own = reinterpret_cast<real*>(shared_memory) + warp * G_TILE * X_TILE;
#pragma unroll
    for (int k = 0; k < X_TALL; ++k)
#pragma unroll
        for (int r = 0; r < G_TALL; ++r) own[(across + k) * G_TILE + down + r] = sum[r][k];
    write_part<G_TILE, X_TILE>(reinterpret_cast<real*>(shared_memory), parts, first_row, rows, first_k, columns);
}
#endif

#ifdef FIRST_GROUPS
// One matrix for several groups of rows: row writes[group] + WRITE_STEP * r of the result is the sum over k of
// matrix[k, r] times row reads[group] + READ_STEP * k.
template <int GROUPS, int ROWS_, int DEPTH_, int READ_STEP, int WRITE_STEP, typename Store>
__device__ void stage(const real* from, const real* matrix, const int* reads, const int* writes, Store store) {
    constexpr int TILES = (ROWS_ + MAP_TALL - 1) / MAP_TALL;
    const int lane = threadIdx.x % LANES;
    for (int unit = threadIdx.x / LANES; unit < GROUPS * TILES; unit += MAP_THREADS / LANES) {
        const int group = unit / TILES, first = unit % TILES * MAP_TALL;
        const real* row = from + reads[group] * MAP_TILE + lane;
        real sum[MAP_TALL][MAP_TILE / LANES] = {};
#pragma unroll 4
        for (int k = 0; k < DEPTH_; ++k) {
            real taken[MAP_TILE / LANES];
            for (int v = 0; v < MAP_TILE / LANES; ++v) taken[v] = row[k * READ_STEP * MAP_TILE + v * LANES];
            for (int r = 0; r < MAP_TALL; r += PACK) {
                const pack of_rows = *reinterpret_cast<const pack*>(&matrix[k * TILES * MAP_TALL + first + r]);
                for (int i = 0; i < PACK; ++i)
                    for (int v = 0; v < MAP_TILE / LANES; ++v) sum[r + i][v] += of_rows.value[i] * taken[v];
            }
        }
        for (int r = 0; r < MAP_TALL && first + r < ROWS_; ++r)
            for (int v = 0; v < MAP_TILE / LANES; ++v)
                store(writes[group] + WRITE_STEP * (first + r), lane + v * LANES, sum[r][v]);
    }
}

// Two stages on all rows of a channel, MAP_TILE positions at a time. With answers, the results of an ELU, x is first
// multiplied by its derivative, and sums[tile, row] receive the sums of the products. With a bias (rows,), the ELU of the
// sum is written. A marginal receives sums of `summed` rows of the result each, which lie `apart` rows apart.
extern "C" __global__ void __launch_bounds__(MAP_THREADS) map_rows(
    Reals x, Table places, Reals first, Reals second, Table reads_and_writes,
    Reals bias, Reals answers, Target sums, Target out, Target marginal, int positions, int batch, int x_rows,
    int summed, int apart, long long x_row, long long out_row
) {
    SHARED_MEMORY;
    real* taken = reinterpret_cast<real*>(shared_memory);
    real* half = taken + IN_ROWS * MAP_TILE;
    const int channel = blockIdx.y, channels = gridDim.y, begin = blockIdx.x * MAP_TILE;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;

    long long source[MAP_TILE / LANES];
    bool counts[MAP_TILE / LANES];
#pragma unroll
    for (int v = 0; v < MAP_TILE / LANES; ++v) {
        const int p = begin + v * LANES + lane;
        source[v] = p < positions ? source_of(places, p, batch) : -1;
        counts[v] = p < positions && (!places || places[p / batch] >= 0);
    }
    for (int row = warp; row < IN_ROWS; row += MAP_THREADS / LANES) {
        const long long at = ((long long)row * channels + channel) * x_row;
        const long long from = ((long long)(row % x_rows) * channels + channel) * x_row;
        real* to = taken + row * MAP_TILE + lane;
#pragma unroll
        for (int v = 0; v < MAP_TILE / LANES; ++v) {
            real value = source[v] < 0 ? real(0) : x[from + source[v]];
            if (answers && source[v] >= 0) value *= slope(answers[at + source[v]]);
            to[v * LANES] = value;
        }
        if (sums)
#pragma unroll
            for (int v = 0; v < MAP_TILE / LANES; ++v)
                half[row * MAP_TILE + lane + v * LANES] = counts[v] ? to[v * LANES] : real(0);
    }
    __syncthreads();
    if (sums) {
        for (int row = threadIdx.x; row < IN_ROWS; row += MAP_THREADS) {
            real total = 0;
            for (int i = 0; i < MAP_TILE; ++i) total += half[row * MAP_TILE + (i + row) % MAP_TILE];
            sums[(long long)blockIdx.x * IN_ROWS * channels + row * channels + channel] = total;
        }
        __syncthreads();
    }
    const int* reads = reads_and_writes;
    const int* writes = reads + FIRST_GROUPS;
    stage<FIRST_GROUPS, FIRST_ROWS, FIRST_DEPTH, FIRST_READ_STEP, FIRST_WRITE_STEP>(
        taken, first, reads, writes, [&](int row, int i, real value) { half[row * MAP_TILE + i] = value; });
    __syncthreads();
    reads = writes + FIRST_GROUPS;
    writes = reads + SECOND_GROUPS;
    stage<SECOND_GROUPS, SECOND_ROWS, SECOND_DEPTH, SECOND_READ_STEP, SECOND_WRITE_STEP>(
        half, second, reads, writes, [&](int row, int i, real value) {
            if (begin + i >= positions) return;
            const long long to = (long long)row * channels + channel;
            const real result = bias ? elu(value + bias[to]) : value;
            out[to * out_row + begin + i] = result;
            if (marginal) taken[row * MAP_TILE + i] = result;
        });
    if (!marginal) return;
    __syncthreads();
    const int marginal_rows = SECOND_GROUPS * SECOND_ROWS / summed;
    for (int k = threadIdx.x; k < marginal_rows * MAP_TILE; k += MAP_THREADS) {
        const int row = k / MAP_TILE, i = k % MAP_TILE;
        const real* from = taken + (row / apart * summed * apart + row % apart) * MAP_TILE + i;
        real total = 0;
#pragma unroll 1  // unrolled, it costs the registers of another block
        for (int n = 0; n < summed; ++n) total += from[n * apart * MAP_TILE];
        if (begin + i < positions) marginal[((long long)row * channels + channel) * out_row + begin + i] = total;
    }
}
#endif

#ifdef TAPS
// Patches around the positions of samples (samples, places, inner): tap t around place u reads place places[t, u], or a
// zero for -1. A number near the mean is subtracted from all samples, zeros included. A thread takes PIECE elements of
// `inner` at a time. There are fewer than 2^31 samples (`CudaPatches.supports`), so 32 bits hold every index, and an
// index plus the step of a loop.
struct __align__(sizeof(real) * PIECE) Piece { real value[PIECE]; };

__device__ inline Piece piece_at(Reals x, unsigned at) { return *reinterpret_cast<const Piece*>(x + at); }

// The sums of `gram`: of products of taps t and s, those with s >= t where both arrays are one; of taps of x; of y.
constexpr int PAIRS_OF_TAPS = SAME ? TAPS * (TAPS + 1) / 2 : TAPS * TAPS;
constexpr int SUMS_OF_TAPS = PAIRS_OF_TAPS + (SAME ? 1 : 2) * TAPS;

__device__ constexpr int pair_of(int t, int s) { return SAME ? t * TAPS - t * (t - 1) / 2 + s - t : t * TAPS + s; }

// The mean of samples from all over x, the same in each block: sums of differences from it lose few digits.
__device__ inline real near_mean(Reals x, unsigned all, real (&some)[PATCH_THREADS]) {
    const unsigned count = min(all, (unsigned)PATCH_THREADS);
    __syncthreads();
    some[threadIdx.x] = threadIdx.x < count ? x[threadIdx.x * (all / count)] : real(0);
    fold(some);
    __syncthreads();
    return some[0] / count;
}

// Write parts[block, :], the sums of the patches of x and y and of their products, and what was subtracted from both.
extern "C" __global__ void __launch_bounds__(PATCH_THREADS, PATCH_BLOCKS) gram(
    Reals x, Reals y, Table places, double* __restrict__ parts, Target centres, int count, int inner, int samples
) {
    SHARED_MEMORY;
    __shared__ real some[PATCH_THREADS];
    real* sums = reinterpret_cast<real*>(shared_memory);
    const unsigned all = samples * count * inner, step = gridDim.x * PATCH_THREADS, in_line = inner / PIECE;
    const real zero_x = -near_mean(x, all, some), zero_y = SAME ? zero_x : -near_mean(y, all, some);
    if (blockIdx.x == 0 && threadIdx.x < 2) centres[threadIdx.x] = threadIdx.x ? -zero_y : -zero_x;
    real sum[SUMS_OF_TAPS] = {};
    // a line is the `inner` elements at one place of a sample; neighbouring threads take neighbouring elements
    for (unsigned p = blockIdx.x * PATCH_THREADS + threadIdx.x; p < all / PIECE; p += step) {
        const unsigned line = p / in_line, u = line % count, first = p * PIECE - u * inner;
        Piece of_x[TAPS], of_y[SAME ? 1 : TAPS];
#pragma unroll
        for (int t = 0; t < TAPS; ++t) {
            const int place = places[t * count + u];
            const unsigned at = first + (place < 0 ? u : place) * inner;
            of_x[t] = piece_at(x, at);
            if (!SAME) of_y[SAME ? 0 : t] = piece_at(y, at);
#pragma unroll
            for (int i = 0; i < PIECE; ++i) {
                of_x[t].value[i] = place < 0 ? zero_x : of_x[t].value[i] + zero_x;
                if (!SAME) of_y[SAME ? 0 : t].value[i] = place < 0 ? zero_y : of_y[SAME ? 0 : t].value[i] + zero_y;
            }
        }
#pragma unroll
        for (int t = 0; t < TAPS; ++t)
#pragma unroll
            for (int i = 0; i < PIECE; ++i) {
                sum[PAIRS_OF_TAPS + t] += of_x[t].value[i];
                if (!SAME) sum[SUMS_OF_TAPS - TAPS + t] += of_y[SAME ? 0 : t].value[i];
#pragma unroll
                for (int s = SAME ? t : 0; s < TAPS; ++s)
                    sum[pair_of(t, s)] += of_x[t].value[i] * (SAME ? of_x[s] : of_y[SAME ? 0 : s]).value[i];
            }
    }
#pragma unroll
    for (int k = 0; k < SUMS_OF_TAPS; ++k) sums[k * PATCH_THREADS + threadIdx.x] = sum[k];
    __syncthreads();
    for (unsigned k = threadIdx.x; k < SUMS_OF_TAPS; k += PATCH_THREADS) {
        double total = 0;
        for (int i = 0; i < PATCH_THREADS; ++i) total += sums[k * PATCH_THREADS + (i + k) % PATCH_THREADS];
        parts[(long long)blockIdx.x * SUMS_OF_TAPS + k] = total;
    }
}

// From the parts of `gram`: the mean patch of x, in double precision and in single, and the covariance. A block for each
// pair of taps.
extern "C" __global__ void __launch_bounds__(PATCH_THREADS) covariance_of(
    const double* __restrict__ parts, Reals centres, double* __restrict__ mean, Target narrow, Target covariance,
    int blocks, double all
) {
    __shared__ double part[3][PATCH_THREADS];
    const int t = blockIdx.x / TAPS, s = blockIdx.x % TAPS;
    const int at[3] = {pair_of(SAME ? min(t, s) : t, SAME ? max(t, s) : s), PAIRS_OF_TAPS + t, SUMS_OF_TAPS - TAPS + s};
    for (int n = 0; n < 3; ++n) {
        double total = 0;
        for (int b = threadIdx.x; b < blocks; b += PATCH_THREADS) total += parts[(long long)b * SUMS_OF_TAPS + at[n]];
        part[n][threadIdx.x] = total;
    }
    for (int n = 0; n < 3; ++n) fold(part[n]);
    if (threadIdx.x) return;
    covariance[t * TAPS + s] = part[0][0] / all - part[1][0] / all * (part[2][0] / all);
    if (s == 0) narrow[t] = mean[t] = part[1][0] / all + centres[0];
}

#ifdef TILE
// Write y, at each place u the sum over the patches that hold it, each at some tap t, of constant[t] + matrix[t, :] .
// (patch - mean), divided by the number of positions; if `symmetric`, matrix plus its transpose takes its place. Add
// `other`, if there is one. A block has a tile of places own[tile, :], and what these patches read, places halo[tile, :] of
// WIDTH pieces at a time, in shared memory; -1 ends both. sources[u, :] says which of the halo the patches that hold u
// read, then -1 for zeros; -2 ends the list. slots[u, t, t'] says which of these tap t' reads in the patch that holds u at
// tap t, -1 if there is no such patch. The factors of all pairs of taps that read one source are added first.
extern "C" __global__ void __launch_bounds__(PATCH_THREADS) spread(
    Reals x, const double* __restrict__ mean, Reals matrix, Reals constant, Table own, Table halo, Table sources,
    Table slots, Reals other, Target y, int count, int inner, int samples, int symmetric
) {
    SHARED_MEMORY;
    __shared__ real factors[TILE][STEPS], weight[TAPS * TAPS], rest[TILE];
    __shared__ int reads[TILE][STEPS], counts[TILE], places[TILE], around[HALO];
    Piece* taken = reinterpret_cast<Piece*>(shared_memory);
    const real positions = (real)samples * count * inner, middle = mean[OWN];  // the tap that reads its own position
    for (int k = threadIdx.x; k < TAPS * TAPS; k += PATCH_THREADS)
        weight[k] = (symmetric ? matrix[k] + matrix[k % TAPS * TAPS + k / TAPS] : matrix[k]) / positions;
    for (int q = threadIdx.x; q < TILE; q += PATCH_THREADS) places[q] = own[blockIdx.x * TILE + q];
    for (int h = threadIdx.x; h < HALO; h += PATCH_THREADS) around[h] = halo[blockIdx.x * HALO + h];
    __syncthreads();
    for (int n = threadIdx.x; n < TILE * STEPS; n += PATCH_THREADS) {
        const int u = places[n / STEPS], k = n % STEPS;
        real total = 0;
        for (int i = 0; i < TAPS * TAPS && u >= 0; ++i)
            if (slots[u * TAPS * TAPS + i] == k) total += weight[i];
        factors[n / STEPS][k] = total;
        reads[n / STEPS][k] = u < 0 ? -2 : sources[u * STEPS + k];
    }
    __syncthreads();
    for (int q = threadIdx.x; q < TILE; q += PATCH_THREADS) {
        real total = 0;
        for (int t = 0; t < TAPS; ++t) {
            if (places[q] < 0 || slots[(places[q] * TAPS + t) * TAPS] < 0) continue;
            total += constant[t] / positions;
            for (int s = 0; s < TAPS; ++s) total -= weight[t * TAPS + s] * real(mean[s] - middle);
        }
        int met = 0;
        while (met < STEPS && reads[q][met] >= 0) ++met;
        if (met < STEPS && reads[q][met] == -1) total -= factors[q][met] * middle;
        counts[q] = met;
        rest[q] = total;
    }
    const int in_line = inner / PIECE, of_line = (in_line + WIDTH - 1) / WIDTH;
    for (int chunk = blockIdx.y; chunk < samples * of_line; chunk += gridDim.y) {
        const unsigned first = (unsigned)(chunk / of_line) * count * inner;
        const int begin = chunk % of_line * WIDTH;
        __syncthreads();
        for (int n = threadIdx.x; n < HALO * WIDTH; n += PATCH_THREADS) {
            const int place = around[n / WIDTH], p = begin + n % WIDTH;
            if (place < 0 || p >= in_line) continue;
            taken[n] = piece_at(x, first + place * inner + p * PIECE);
            for (int i = 0; i < PIECE; ++i) taken[n].value[i] -= middle;
        }
        __syncthreads();
        for (int n = threadIdx.x; n < TILE * WIDTH; n += PATCH_THREADS) {
            const int q = n / WIDTH, p = begin + n % WIDTH;
            if (places[q] < 0 || p >= in_line) continue;
            const unsigned at = first + places[q] * inner + p * PIECE;
            Piece total = {};
            if (other) total = piece_at(other, at);
            for (int i = 0; i < PIECE; ++i) total.value[i] += rest[q];
#pragma unroll 5
            for (int k = 0; k < counts[q]; ++k) {
                const Piece sample = taken[reads[q][k] * WIDTH + n % WIDTH];
                for (int i = 0; i < PIECE; ++i) total.value[i] += factors[q][k] * sample.value[i];
            }
            *reinterpret_cast<Piece*>(y + at) = total;
        }
    }
}
#endif
#endif

#ifdef SIDE
// Write out[i, j], the sum over k of x[i, k] * y[k, j], in blocks of SIDE x SIDE sums; operands may be transposed. With
// tables of where its rows and columns begin, y or out may lie in any order of axes.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE / 4) multiply(
    Reals x, Reals y, Target out, Table y_rows, Table y_columns, Table out_rows, Table out_columns,
    int rows, int columns, int depth, long long x_row, long long x_column, long long y_row, long long y_column
) {
    __shared__ real of_x[SIDE][SIDE + 1], of_y[SIDE][SIDE + 1];
    constexpr int HALF = SIDE / 2;
    const int first_row = blockIdx.x * SIDE, first_column = blockIdx.y * SIDE;
    const int down = threadIdx.x / HALF, across = threadIdx.x % HALF;
    real sum[2][2] = {};
    for (int k0 = 0; k0 < depth; k0 += SIDE) {
        __syncthreads();
        for (int t = threadIdx.x; t < SIDE * SIDE; t += SIDE * SIDE / 4) {
            const int i = t / SIDE, j = t % SIDE;
            const bool in_x = first_row + i < rows && k0 + j < depth, in_y = k0 + i < depth && first_column + j < columns;
            of_x[i][j] = in_x ? x[(first_row + i) * x_row + (k0 + j) * x_column] : real(0);
            of_y[i][j] = real(0);
            if (in_y)
                of_y[i][j] = y[y_rows ? y_rows[k0 + i] + y_columns[first_column + j]
                                      : (k0 + i) * y_row + (first_column + j) * y_column];
        }
        __syncthreads();
        for (int k = 0; k < SIDE; ++k)
            for (int r = 0; r < 2; ++r)
                for (int c = 0; c < 2; ++c) sum[r][c] += of_x[down + r * HALF][k] * of_y[k][across + c * HALF];
    }
    for (int r = 0; r < 2; ++r)
        for (int c = 0; c < 2; ++c) {
            const int i = first_row + down + r * HALF, j = first_column + across + c * HALF;
            if (i < rows && j < columns)
                out[out_rows ? out_rows[i] + out_columns[j] : (long long)i * columns + j] = sum[r][c];
        }
}
#endif

#ifdef ADDERS
// Write out[part, o, i], the sum over the terms r of part blockIdx.y of x[o, r, i], times a factor. A block adds up `across`
// neighbouring sums; its other threads share out their terms. Sums are made in double precision.
extern "C" __global__ void __launch_bounds__(ADDERS) add_terms(
    Reals x, Target out, int outer, int terms, int inner, int across, double factor
) {
    __shared__ double part[ADDERS];
    const int tiles = (inner + across - 1) / across, o = blockIdx.x / tiles;
    const int i = blockIdx.x % tiles * across + threadIdx.x % across;
    const int step = ADDERS / across * gridDim.y;
    const real* from = x + (long long)o * terms * inner + i;
    double total = 0;
    const int end = i < inner ? terms : 0;
#pragma unroll 8
    for (int r = blockIdx.y * (ADDERS / across) + threadIdx.x / across; r < end; r += step)
        total += from[(long long)r * inner];
    part[threadIdx.x] = total;
    fold(part, across);
    if (threadIdx.x < across && i < inner)
        out[((long long)blockIdx.y * outer + o) * inner + i] = part[threadIdx.x] * factor;
}
#endif

#ifdef SUMS
struct Term { const real* array; const real* scalar; real weight, rate; };
struct Sum { Term term[TERMS]; real* out; int count, terms; };
struct Sums { Sum sum[SUMS]; const bool* where; };
static_assert(sizeof(Sums) == BYTES, "the argument is laid out otherwise");

// Write each of some sums of arrays, weighted by numbers and by scalars: a row of blocks for each, unless `where` is false.
extern "C" __global__ void __launch_bounds__(SUM_THREADS) weigh(const Sums all) {
    if (all.where && !*all.where) return;
    const Sum& sum = all.sum[blockIdx.y];
    real weight[TERMS];
#pragma unroll
    for (int k = 0; k < TERMS; ++k) {  // all of them, so that weights are registers
        const Term& term = sum.term[k];
        weight[k] = term.scalar ? term.weight + term.rate * *term.scalar : term.weight;
    }
    for (int i = blockIdx.x * SUM_THREADS + threadIdx.x; i < sum.count; i += gridDim.x * SUM_THREADS) {
        real total = 0;
#pragma unroll
        for (int k = 0; k < TERMS; ++k)
            if (k < sum.terms) total += weight[k] * sum.term[k].array[i];
        sum.out[i] = total;
    }
}
#endif

#ifdef FILTER_TAPS
// The variance of a filter's responses to patches with this covariance, and twice the symmetric part of the covariance
// times the filter.
__device__ inline real variance_of(const real (&h)[FILTER_TAPS], Reals covariance, real (&twice)[FILTER_TAPS]) {
    real variance = 0;
    for (int t = 0; t < FILTER_TAPS; ++t) {
        twice[t] = 0;
        for (int s = 0; s < FILTER_TAPS; ++s)
            twice[t] += (covariance[t * FILTER_TAPS + s] + covariance[s * FILTER_TAPS + t]) * h[s];
        variance += twice[t] * h[t] / 2;
    }
    return variance;
}

// Write filters h (count, taps), divided by the standard deviation of their responses, to filters (taps, count), and their
// mean responses after that to means.
__device__ inline void normalize_filters(
    Reals h, Reals mean, Reals covariance, real* filters, real* means, int count, double epsilon
) {
    for (int q = threadIdx.x; q < count; q += FILTER_THREADS) {
        real own[FILTER_TAPS], twice[FILTER_TAPS], response = 0;
        for (int t = 0; t < FILTER_TAPS; ++t) own[t] = h[q * FILTER_TAPS + t];
        const real variance = variance_of(own, covariance, twice);
        const real sigma = sqrt((variance < 0 ? real(0) : variance) + real(epsilon));
        for (int t = 0; t < FILTER_TAPS; ++t) {
            filters[t * count + q] = own[t] / sigma;
            response += own[t] / sigma * mean[t];
        }
        means[q] = response;
    }
}

extern "C" __global__ void __launch_bounds__(FILTER_THREADS) normalize(
    Reals h, Reals mean, Reals covariance, Target filters, Target means, int count, double epsilon
) {
    normalize_filters(h, mean, covariance, filters, means, count, epsilon);
}

// Merge the normalised factors h (count, taps) with g (count, across, kernels), a block for each kernel: w (across, taps,
// kernels) is the sum of their products. offset (places, kernels) is the bias minus the response of g to the means of h's
// responses, in which tap t has the weight reach[t, place].
extern "C" __global__ void __launch_bounds__(FILTER_THREADS) merge(
    Reals h, Reals g, Reals mean, Reals covariance, Reals bias, Reals reach, Target w, Target offset,
    int count, int across, int kernels, int places, double epsilon
) {
    SHARED_MEMORY;
    real* normal = reinterpret_cast<real*>(shared_memory);  // (FILTER_TAPS + 1, count), the last row the means
    real* of_means = normal + (FILTER_TAPS + 1) * count;
    const int k = blockIdx.x;
    normalize_filters(h, mean, covariance, normal, normal + FILTER_TAPS * count, count, epsilon);
    __syncthreads();
    for (int t = threadIdx.x; t < across; t += FILTER_THREADS) {
        real sum[FILTER_TAPS + 1] = {};
        for (int q = 0; q < count; ++q) {
            const real factor = g[((long long)q * across + t) * kernels + k];
            for (int r = 0; r <= FILTER_TAPS; ++r) sum[r] += normal[r * count + q] * factor;
        }
        for (int r = 0; r < FILTER_TAPS; ++r) w[(t * FILTER_TAPS + r) * kernels + k] = sum[r];
        of_means[t] = sum[FILTER_TAPS];
    }
    __syncthreads();
    for (int p = threadIdx.x; p < places; p += FILTER_THREADS) {
        real total = 0;
        for (int t = 0; t < across; ++t) total += reach[t * places + p] * of_means[t];
        offset[p * kernels + k] = bias[k] - total;
    }
}

// The cotangents of g and the bias, and each kernel's part (kernels, FILTER_TAPS + 1, count) of those of the normalised
// filters and of the means of their responses, from the cotangents of w and offset. A block for each kernel.
extern "C" __global__ void __launch_bounds__(FILTER_THREADS) merge_back(
    Reals h, Reals g, Reals mean, Reals covariance, Reals reach, Reals g_w, Reals g_offset, Target of_g,
    Target of_bias, Target parts,
    int count, int across, int kernels, int places, double epsilon
) {
    SHARED_MEMORY;
    real* normal = reinterpret_cast<real*>(shared_memory);  // (FILTER_TAPS + 1, count), the last row the means
    real* given = normal + (FILTER_TAPS + 1) * count;  // cotangents (FILTER_TAPS + 1, across), the last row of the responses to the means
    const int k = blockIdx.x;
    normalize_filters(h, mean, covariance, normal, normal + FILTER_TAPS * count, count, epsilon);
    for (int t = threadIdx.x; t < across; t += FILTER_THREADS) {
        real total = 0;
        for (int p = 0; p < places; ++p) total -= reach[t * places + p] * g_offset[p * kernels + k];
        given[FILTER_TAPS * across + t] = total;
        for (int r = 0; r < FILTER_TAPS; ++r) given[r * across + t] = g_w[(t * FILTER_TAPS + r) * kernels + k];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        real total = 0;
        for (int p = 0; p < places; ++p) total += g_offset[p * kernels + k];
        of_bias[k] = total;
    }
    for (int i = threadIdx.x; i < count * across; i += FILTER_THREADS) {
        const int q = i / across, t = i % across;
        real total = 0;
        for (int r = 0; r <= FILTER_TAPS; ++r) total += normal[r * count + q] * given[r * across + t];
        of_g[(long long)i * kernels + k] = total;
    }
    for (int i = threadIdx.x; i < (FILTER_TAPS + 1) * count; i += FILTER_THREADS) {
        const int r = i / count, q = i % count;
        real total = 0;
        for (int t = 0; t < across; ++t) total += given[r * across + t] * g[((long long)q * across + t) * kernels + k];
        parts[(long long)k * (FILTER_TAPS + 1) * count + i] = total;
    }
}

// The cotangents of filters, mean and covariance, from those of both results. Each of the two is a sum of parts, which
// begin part_step apart. One block.
extern "C" __global__ void __launch_bounds__(FILTER_THREADS) normalize_back(
    Reals h, Reals mean, Reals covariance, Reals g_filters, Reals g_means, Target of_h, Target of_mean,
    Target of_covariance, int count, int parts, int part_step, double epsilon
) {
    __shared__ real of_variance[MOST_FILTERS], of_sum[MOST_FILTERS];
    for (int q = threadIdx.x; q < count; q += FILTER_THREADS) {
        real own[FILTER_TAPS], twice[FILTER_TAPS], of_normal[FILTER_TAPS], along = 0;
        for (int t = 0; t < FILTER_TAPS; ++t) own[t] = h[q * FILTER_TAPS + t];
        const real variance = variance_of(own, covariance, twice);
        const real sigma = sqrt((variance < 0 ? real(0) : variance) + real(epsilon));
        real of_response = 0;
        for (int k = 0; k < parts; ++k) of_response += g_means[(long long)k * part_step + q];
        for (int t = 0; t < FILTER_TAPS; ++t) {
            of_normal[t] = of_response * mean[t];
            for (int k = 0; k < parts; ++k) of_normal[t] += g_filters[(long long)k * part_step + t * count + q];
            along += of_normal[t] * own[t];
        }
        of_variance[q] = variance < 0 ? real(0) : along / (-2 * sigma * sigma * sigma);
        of_sum[q] = of_response / sigma;
        for (int t = 0; t < FILTER_TAPS; ++t)
            of_h[q * FILTER_TAPS + t] = of_normal[t] / sigma + of_variance[q] * twice[t];
    }
    __syncthreads();
    for (int k = threadIdx.x; k < FILTER_TAPS * (FILTER_TAPS + 1); k += FILTER_THREADS) {
        const int t = k / (FILTER_TAPS + 1), s = k % (FILTER_TAPS + 1);
        real total = 0;
        for (int q = 0; q < count; ++q)
            total += s < FILTER_TAPS ? of_variance[q] * h[q * FILTER_TAPS + t] * h[q * FILTER_TAPS + s]
                                     : of_sum[q] * h[q * FILTER_TAPS + t];
        (s < FILTER_TAPS ? of_covariance[t * FILTER_TAPS + s] : of_mean[t]) = total;
    }
}
#endif

#ifdef MATRICES
// A weight as a matrix of at least as many rows as columns, with what Muon makes of it.
struct Matrix {
    const real *weight, *gradient, *velocity;
    real *new_weight, *new_velocity;
    int rows, columns, row_step, column_step;
    real decay;
};
struct Matrices { Matrix matrix[MATRICES]; const real* rate_at; real rate, momentum; int nesterov; };
static_assert(sizeof(Matrices) == BYTES, "the argument is laid out otherwise");

// Element number e of some rows, all columns of them, so that neighbouring threads take neighbouring addresses.
__device__ inline void find(const Matrix& m, int e, int rows, int& i, int& j) {
    const bool by_rows = m.column_step == 1;
    i = by_rows ? e / m.columns : e % rows;
    j = by_rows ? e % m.columns : e / rows;
}

// Write what the velocities become, and parts[matrix, block, :, :] of U^T U, where U is what becomes semi-orthogonal: the
// velocity, or with Nesterov's momentum what comes after it.
extern "C" __global__ void __launch_bounds__(MUON_THREADS) muon_grams(const Matrices all, double* __restrict__ parts) {
    constexpr int ROWS = 32, EACH = (MUON_SIDE * MUON_SIDE + MUON_THREADS - 1) / MUON_THREADS;
    __shared__ real taken[ROWS][MUON_SIDE + 1];
    const Matrix& m = all.matrix[blockIdx.y];
    const int n = m.columns;
    double sum[EACH] = {};
    for (int first = blockIdx.x * ROWS; first < m.rows; first += gridDim.x * ROWS) {
        __syncthreads();
        for (int e = threadIdx.x; e < ROWS * n; e += MUON_THREADS) {
            int i, j;
            find(m, e, ROWS, i, j);
            taken[i][j] = 0;
            if (first + i >= m.rows) continue;
            const int at = (first + i) * m.row_step + j * m.column_step;
            const real velocity = all.momentum * m.velocity[at] + m.gradient[at];
            m.new_velocity[at] = velocity;
            taken[i][j] = all.nesterov ? all.momentum * velocity + m.gradient[at] : velocity;
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < EACH; ++q) {
            const int e = threadIdx.x + q * MUON_THREADS;
            if (e < n * n)
                for (int i = 0; i < ROWS; ++i) sum[q] += (double)taken[i][e / n] * taken[i][e % n];
        }
    }
#pragma unroll
    for (int q = 0; q < EACH; ++q) {
        const int e = threadIdx.x + q * MUON_THREADS;
        if (e < n * n) parts[((long long)blockIdx.y * gridDim.x + blockIdx.x) * MUON_SIDE * MUON_SIDE + e] = sum[q];
    }
}

// Write a * b, of matrices n x n.
__device__ inline void multiply_squares(const double* a, const double* b, double* out, int n) {
    for (int e = threadIdx.x; e < n * n; e += MUON_THREADS) {
        double total = 0;
        for (int k = 0; k < n; ++k) total += a[e / n * n + k] * b[k * n + e % n];
        out[e] = total;
    }
}

// Write the polynomial P of U^T U for which U P is nearly semi-orthogonal, from the parts of `muon_grams`. Five steps U <-
// U (a + b G + c G^2) of G = U^T U, U first divided by its norm, change G alone: all these matrices commute. One block for
// each matrix.
extern "C" __global__ void __launch_bounds__(MUON_THREADS) muon_polynomials(
    const Matrices all, const double* __restrict__ parts, double* __restrict__ polynomials, int blocks, double tiny
) {
    constexpr int ALL = MUON_SIDE * MUON_SIDE;
    __shared__ double gram[ALL], step[ALL], product[ALL], total[ALL], next[ALL];
    const int n = all.matrix[blockIdx.x].columns;
    for (int e = threadIdx.x; e < n * n; e += MUON_THREADS) {
        gram[e] = 0;
        for (int b = 0; b < blocks; ++b) gram[e] += parts[((long long)blockIdx.x * blocks + b) * ALL + e];
    }
    __syncthreads();
    double square = tiny;
    for (int i = 0; i < n; ++i) square += gram[i * n + i];
    __syncthreads();
    for (int e = threadIdx.x; e < n * n; e += MUON_THREADS) {
        gram[e] /= square;
        total[e] = e / n == e % n ? 1 / sqrt(square) : 0;
    }
    for (int iteration = 0; iteration < 5; ++iteration) {
        __syncthreads();
        multiply_squares(gram, gram, step, n);
        for (int e = threadIdx.x; e < n * n; e += MUON_THREADS)  // each its own elements
            step[e] = 2.0315 * step[e] - 4.7750 * gram[e] + (e / n == e % n ? 3.4445 : 0);
        __syncthreads();
        multiply_squares(total, step, next, n);
        multiply_squares(step, gram, product, n);
        __syncthreads();
        multiply_squares(step, product, gram, n);
        for (int e = threadIdx.x; e < n * n; e += MUON_THREADS) total[e] = next[e];
    }
    for (int e = threadIdx.x; e < n * n; e += MUON_THREADS) polynomials[(long long)blockIdx.x * ALL + e] = total[e];
}

// Write weight - rate * (U P + decay * weight), after `muon_grams` and `muon_polynomials`.
extern "C" __global__ void __launch_bounds__(MUON_THREADS) muon_moves(
    const Matrices all, const double* __restrict__ polynomials
) {
    __shared__ double polynomial[MUON_SIDE * MUON_SIDE];
    const Matrix& m = all.matrix[blockIdx.y];
    const int n = m.columns;
    for (int e = threadIdx.x; e < n * n; e += MUON_THREADS)
        polynomial[e] = polynomials[(long long)blockIdx.y * MUON_SIDE * MUON_SIDE + e];
    __syncthreads();
    const real rate = all.rate_at ? *all.rate_at : all.rate;
    for (int e = blockIdx.x * MUON_THREADS + threadIdx.x; e < m.rows * n; e += gridDim.x * MUON_THREADS) {
        int i, j;
        find(m, e, m.rows, i, j);
        double total = 0;
        for (int k = 0; k < n; ++k) {
            const int at = i * m.row_step + k * m.column_step;
            const real velocity = m.new_velocity[at];
            total += (all.nesterov ? all.momentum * velocity + m.gradient[at] : velocity) * polynomial[k * n + j];
        }
        const int at = i * m.row_step + j * m.column_step;
        m.new_weight[at] = m.weight[at] - rate * (real(total) + m.decay * m.weight[at]);
    }
}
#endif

#ifdef NORM_THREADS
// Sums over all threads of a block, for each of them, by way of shared memory.
template <int N> __device__ inline void add_up(double (&part)[N][NORM_THREADS], double (&sum)[N]) {
    for (int n = 0; n < N; ++n) part[n][threadIdx.x] = sum[n];
    for (int half = NORM_THREADS / 2; half; half /= 2) {
        __syncthreads();
        for (int n = 0; n < N && threadIdx.x < half; ++n) part[n][threadIdx.x] += part[n][threadIdx.x + half];
    }
    __syncthreads();
    for (int n = 0; n < N; ++n) sum[n] = part[n][0];
}

// A row holds the positions at which v_j and all axes before it in memory have one value; it belongs to channel row %
// channels. Each may have a number that is added to y.
__device__ inline real shift_of(Reals shift, int row) { return shift ? shift[row] : real(0); }

// A part is the mean of some positions of a row, and the sum of their squared deviations. Parts are added up as sums of
// differences from a number near their means, which lose few digits, and of the squares of these.
__device__ inline void include(double (&sum)[2], const double* __restrict__ part, int count, double added) {
    const double difference = part[0] + added;
    sum[0] += count * difference;
    sum[1] += part[1] + count * difference * difference;
}
__device__ inline void write_part(double* part, double origin, const double (&sum)[2], double count) {
    part[0] = origin + sum[0] / count;
    const double squares = sum[1] - sum[0] * (sum[0] / count);
    part[1] = squares < 0 ? 0 : squares;  // which rounding may make
}

// Write parts[row, block], of `length` positions each, but for the last.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) row_sums(
    Reals y, double* __restrict__ parts, int positions, int length
) {
    const int row = blockIdx.y, first = blockIdx.x * length, count = min(length, positions - first);
    const real* from = y + (long long)row * positions + first;
    const double origin = from[0];
    __shared__ double part[2][NORM_THREADS];
    double sum[2] = {};
    for (int p = threadIdx.x; p < count; p += NORM_THREADS) {
        const double difference = from[p] - origin;
        sum[0] += difference;
        sum[1] += difference * difference;
    }
    add_up(part, sum);
    if (threadIdx.x == 0) write_part(parts + ((long long)row * gridDim.x + blockIdx.x) * 2, origin, sum, count);
}

// Make one part of those of a row, of `length` positions each, but for the last. A block for each row.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) join_parts(
    const double* __restrict__ parts, double* __restrict__ joined, int blocks, int positions, int length
) {
    const double* of_row = parts + (long long)blockIdx.x * blocks * 2;
    __shared__ double part[2][NORM_THREADS];
    double sum[2] = {};
    for (int b = threadIdx.x; b < blocks; b += NORM_THREADS)
        include(sum, of_row + b * 2, min(length, positions - b * length), -of_row[0]);
    add_up(part, sum);
    if (threadIdx.x == 0) write_part(joined + blockIdx.x * 2, of_row[0], sum, positions);
}

// From parts, as `row_sums` makes them, the mean and variance of each channel of y + shift, in both precisions. A block
// for each channel.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) channel_moments(
    Reals shift, const double* __restrict__ parts, Target mean, Target variance, double* __restrict__ moments,
    int channels, int positions, int rows, int blocks, int length
) {
    const int k = blockIdx.x, groups = rows / channels;
    const double origin = parts[(long long)k * blocks * 2] + shift_of(shift, k);
    __shared__ double part[2][NORM_THREADS];
    double sum[2] = {};
    for (int i = threadIdx.x; i < groups * blocks; i += NORM_THREADS) {
        const int row = i / blocks * channels + k, block = i % blocks;
        const double* of_block = parts + ((long long)row * blocks + block) * 2;
        include(sum, of_block, min(length, positions - block * length), shift_of(shift, row) - origin);
    }
    add_up(part, sum);
    if (threadIdx.x) return;
    const double count = (double)groups * positions;
    double all[2];
    write_part(all, origin, sum, count);
    moments[k] = all[0];
    moments[channels + k] = all[1] / count;
    mean[k] = moments[k];
    variance[k] = moments[channels + k];
}

// What is added to the numbers of a row for their deviations, in two parts: y + high has few digits left to round, and low
// is what high lacks.
struct Added {
    real high, low;
    Added() = default;
    __device__ Added(double whole) : high(whole), low(whole - real(whole)) {}
    __device__ real operator()(real y) const { return (y + high) + low; }
};

// What a row has in common: deviations times inverse are normalised; scale times these plus bias is the result, or with an
// RHO the argument of its ELU (1) or, with what skips it, of its ReLU (2).
struct Row {
    Added added;
    real inverse, scale, bias;
    __device__ Row(
        int row, int channels, Reals shift, const double* __restrict__ moments, Reals scales, Reals biases, double epsilon
    ) : added(shift_of(shift, row) - moments[row % channels]), inverse(1 / sqrt(moments[channels + row % channels] + epsilon)),
        scale(scales[row % channels]), bias(biases[row % channels]) {}
    __device__ real normal(real y) const { return added(y) * inverse; }
    __device__ real argument(real normalised) const { return scale * normalised + bias; }
    __device__ real given(real of_ans, real normalised) const {
        return RHO == 1 ? of_ans * slope(elu(argument(normalised))) : of_ans;
    }
};

// Write sums of `summed` rows of one channel, which lie `apart` rows apart, each normalised, scaled, and its RHO.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) normalize_rows(
    Reals y, Reals shift, const double* __restrict__ moments, Reals scale, Reals bias, Reals skipping, Target ans,
    int channels, int positions, int summed, int apart, double epsilon
) {
    __shared__ Added added[NORM_THREADS];
    const int first = blockIdx.y / apart * summed * apart + blockIdx.y % apart;
    const Row row(first, channels, shift, moments, scale, bias, epsilon);
    if (threadIdx.x < summed)
        added[threadIdx.x] = shift_of(shift, first + threadIdx.x * apart) - moments[first % channels];
    __syncthreads();
    for (int p = blockIdx.x * NORM_THREADS + threadIdx.x; p < positions; p += gridDim.x * NORM_THREADS) {
        real total = 0;
#pragma unroll 4
        for (int n = 0; n < summed; ++n) {
            const real deviation = added[n](y[(first + (long long)n * apart) * positions + p]);
            const real argument = row.argument(deviation * row.inverse);
            total += RHO == 1 ? elu(argument) : argument;
        }
        if (RHO == 2) {
            total += skipping ? skipping[(long long)blockIdx.y * positions + p] : real(0);
            total = total <= 0 ? real(0) : total;  // NaN stays
        }
        ans[(long long)blockIdx.y * positions + p] = total;
    }
}

// Write parts[row, block, :], sums over a row: of the cotangent of `argument`, of its product with the normalised numbers,
// and of these. g has its rows at g_rows, or in their order. With answers, the results of a ReLU, of_argument receives the
// first of the three.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) row_sums_back(
    Reals g, Table g_rows, Reals y, Reals shift, const double* __restrict__ moments, Reals scale, Reals bias,
    Reals answers, Target of_argument, double* __restrict__ parts, int channels, int positions, double epsilon
) {
    const Row row(blockIdx.y, channels, shift, moments, scale, bias, epsilon);
    const real* of_ans = g + (long long)(g_rows ? g_rows[blockIdx.y] : blockIdx.y) * positions;
    const long long first = (long long)blockIdx.y * positions;
    __shared__ double part[3][NORM_THREADS];
    double sum[3] = {};
    for (int p = blockIdx.x * NORM_THREADS + threadIdx.x; p < positions; p += gridDim.x * NORM_THREADS) {
        const real normal = row.normal(y[first + p]);
        real given = row.given(of_ans[p], normal);
        if (RHO == 2) of_argument[first + p] = given = answers[first + p] > 0 ? given : real(0);
        sum[0] += given;
        sum[1] += (double)given * normal;
        sum[2] += normal;
    }
    add_up(part, sum);
    for (int n = 0; n < 3 && threadIdx.x == 0; ++n)
        parts[((long long)blockIdx.y * gridDim.x + blockIdx.x) * 3 + n] = sum[n];
}

// From the parts of `row_sums_back`, the cotangents of bias and scale. A block for each channel.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) channel_sums_back(
    const double* __restrict__ parts, Target of_bias, Target of_scale, int channels, int rows, int blocks
) {
    const int k = blockIdx.x;
    __shared__ double part[2][NORM_THREADS];
    double sum[2] = {};
    for (int i = threadIdx.x; i < rows / channels * blocks; i += NORM_THREADS) {
        const long long at = ((long long)(i / blocks * channels + k) * blocks + i % blocks) * 3;
        sum[0] += parts[at];
        sum[1] += parts[at + 1];
    }
    add_up(part, sum);
    if (threadIdx.x == 0) of_bias[k] = sum[0], of_scale[k] = sum[1];
}

// The cotangents of y, and of what is added to each row, which is the sum of the former and follows from the parts of
// `row_sums_back`. Where this is a part of a batch, of_bias and of_scale are those of the whole.
extern "C" __global__ void __launch_bounds__(NORM_THREADS) normalize_rows_back(
    Reals g, Table g_rows, Reals g_mean, Reals g_variance, Reals y, Reals shift, const double* __restrict__ moments,
    Reals scale, Reals bias, Reals of_bias, Reals of_scale, const double* __restrict__ parts, Target of_y,
    Target of_shift, int channels, int positions, int blocks, double count, double epsilon
) {
    const Row row(blockIdx.y, channels, shift, moments, scale, bias, epsilon);
    const int k = blockIdx.y % channels;
    const real factor = row.scale * row.inverse, constant = of_bias[k] / count, along = of_scale[k] / count;
    const real of_mean = g_mean[k] / count, of_normal = 2 * g_variance[k] / count / row.inverse;
    const real* of_ans = g + (long long)(g_rows ? g_rows[blockIdx.y] : blockIdx.y) * positions;
    const long long first = (long long)blockIdx.y * positions;
    for (int p = blockIdx.x * NORM_THREADS + threadIdx.x; p < positions; p += gridDim.x * NORM_THREADS) {
        const real normal = row.normal(y[first + p]), given = row.given(of_ans[p], normal);
        of_y[first + p] = factor * (given - constant - normal * along) + (of_mean + normal * of_normal);
    }
    if (blockIdx.x || threadIdx.x || !of_shift) return;
    double given = 0, normal = 0;
    for (int b = 0; b < blocks; ++b) {
        given += parts[((long long)blockIdx.y * blocks + b) * 3];
        normal += parts[((long long)blockIdx.y * blocks + b) * 3 + 2];
    }
    of_shift[blockIdx.y] = factor * (given - (double)positions * constant - normal * along)
        + ((double)positions * of_mean + normal * of_normal);
}
#endif

#ifdef LOSS_THREADS
// The mean over images of the cross-entropy of logits (images, classes), and its gradient. A target is smoothing / classes
// everywhere, plus 1 - smoothing at the label. A label out of range makes NaN. One block.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS) cross_entropy(
    Reals logits, const long long* __restrict__ labels, Target loss, Target gradient, int images, int classes,
    double smoothing
) {
    __shared__ double part[LOSS_THREADS];
    const real elsewhere = smoothing / classes, at_label = 1 - smoothing + smoothing / classes;
    double total = 0;
    for (int n = threadIdx.x; n < images; n += LOSS_THREADS) {
        const real* x = logits + (long long)n * classes;
        const long long label = labels[n];
        real largest = x[0], sum = 0;
        for (int c = 1; c < classes; ++c) largest = x[c] > largest ? x[c] : largest;
        for (int c = 0; c < classes; ++c) sum += exp(x[c] - largest);
        const real all = log(sum);
        for (int c = 0; c < classes; ++c) {
            const real log_probability = x[c] - largest - all;
            const real target = label < 0 || label >= classes ? real(nan("")) : c == label ? at_label : elsewhere;
            if (target != 0) total -= (double)target * log_probability;  // NaN is not 0
            gradient[(long long)n * classes + c] = (exp(log_probability) - target) / images;
        }
    }
    part[threadIdx.x] = total;
    fold(part);
    if (threadIdx.x == 0) *loss = part[0] / images;
}
#endif


// One filter: one channel in, one out. A block of threads makes a tile of results along the last three axes in memory
// from the samples around it, which it keeps in shared memory. A thread makes RESULTS of them, side by side along one of
// these axes, REG; it reads each sample once for all taps along REG. Other axes, if there are any, are OUTER: a block has
// one result along each of them, and takes their taps one after the other.

// An axis: the steps of x, y and w along it, in elements; tap k of result o reads sample stride * o + first + k.
struct Axis {
    long long x_step, y_step, w_step;
    int samples, results, taps, stride, first, periodic;
};
struct Axes { Axis axis[OUTER + 3]; };
static_assert(sizeof(Axes) == BYTES, "the argument is laid out otherwise");

constexpr int PAIRS = P_TAPS * Q_TAPS, ROW = (REG_TAPS + AT_ONCE - 1) / AT_ONCE * PACKED;
constexpr int OUTPUTS = TILE_0 * TILE_1 * TILE_2, SAMPLES = READ_0 * READ_1 * PITCH + BEYOND;

// The sample at some place along an axis, or -1 for a zero.
__device__ inline int sample_of(const Axis& axis, int at) {
    if (at >= 0 && at < axis.samples) return at;
    if (!axis.periodic) return -1;
    at %= axis.samples;
    return at < 0 ? at + axis.samples : at;
}

// The results along each axis with which a tile begins.
__device__ inline void find_tile(const Axes& all, int tile, int (&begin)[OUTER + 3]) {
    constexpr int size[] = {TILE_0, TILE_1, TILE_2};
#pragma unroll
    for (int d = OUTER + 2; d >= 0; --d) {
        const int each = d < OUTER ? 1 : size[d - OUTER < 0 ? 0 : d - OUTER];
        const int tiles = (all.axis[d].results + each - 1) / each;
        begin[d] = tile % tiles * each;
        tile /= tiles;
    }
}

// Where the samples and the filter of a tap of the outer axes begin; false if it meets zeros only.
__device__ inline bool find_tap(const Axes& all, int tap, const int (&begin)[OUTER + 3], long long& x_at, long long& w_at) {
    bool met = true;
    x_at = w_at = 0;
#pragma unroll
    for (int d = OUTER - 1; d >= 0; --d) {
        const Axis& axis = all.axis[d];
        const int k = tap % axis.taps, sample = sample_of(axis, axis.stride * begin[d] + axis.first + k);
        tap /= axis.taps;
        met = met && sample >= 0;
        x_at += sample * axis.x_step;
        w_at += k * axis.w_step;
    }
    return met;
}

// The places of the samples that a tile reads along the last three axes, one axis after the other, as `sample_of` has them.
__device__ inline void find_samples(int* places, const Axes& all, const int (&begin)[OUTER + 3]) {
    for (int i = threadIdx.x; i < READ_0 + READ_1 + READ_2; i += SINGLE) {
        const int d = i < READ_0 ? 0 : i < READ_0 + READ_1 ? 1 : 2, k = i - (d > 0 ? READ_0 : 0) - (d > 1 ? READ_1 : 0);
        const Axis& axis = all.axis[OUTER + d];
        places[i] = sample_of(axis, axis.stride * begin[OUTER + d] + axis.first + k);
    }
}

// The samples at these places, with zeros beyond the boundary.
__device__ inline void take_samples(real* taken, Reals x, const Axes& all, const int* places) {
    const long long step_a = all.axis[OUTER].x_step, step_b = all.axis[OUTER + 1].x_step;
    const long long step_c = all.axis[OUTER + 2].x_step;
#pragma unroll 4
    for (int i = threadIdx.x; i < READ_0 * READ_1 * READ_2; i += SINGLE) {
        const int row = i / READ_2, c = i % READ_2;
        const int at_a = places[row / READ_1], at_b = places[READ_0 + row % READ_1], at_c = places[READ_0 + READ_1 + c];
        const bool there = (at_a | at_b | at_c) >= 0;
        taken[row * PITCH + c] = there ? x[at_a * step_a + at_b * step_b + at_c * step_c] : real(0);
    }
}

// Where element i of a tile of results lies in y; false beyond the results.
__device__ inline bool find_result(const Axes& all, const int (&begin)[OUTER + 3], int i, long long& at) {
    const Axis &a = all.axis[OUTER], &b = all.axis[OUTER + 1], &c = all.axis[OUTER + 2];
    const int of_a = begin[OUTER] + i / (TILE_1 * TILE_2), of_b = begin[OUTER + 1] + i / TILE_2 % TILE_1;
    const int of_c = begin[OUTER + 2] + i % TILE_2;
    if (of_a >= a.results || of_b >= b.results || of_c >= c.results) return false;
    at = of_a * a.y_step + of_b * b.y_step + of_c * c.y_step;
#pragma unroll
    for (int d = 0; d < OUTER; ++d) at += begin[d] * all.axis[d].y_step;
    return true;
}

// Where a thread's samples and results begin in a tile of each. Thread t has number t % UNITS_2 along the last axis.
__device__ inline void find_results(int t, int& of_x, int& of_y) {
    const int a = t / (UNITS_1 * UNITS_2), b = t / UNITS_2 % UNITS_1, c = t % UNITS_2;
    of_x = a * X_STEP_0 + b * X_STEP_1 + c * X_STEP_2;
    of_y = a * Y_STEP_0 + b * Y_STEP_1 + c * Y_STEP_2;
}

// Add COUNT neighbouring taps to the sums: the samples of all of them are read once.
template <int COUNT>
__device__ inline void add_taps(real (&sum)[RESULTS], const real* from, const real* factors) {
    constexpr int WINDOW = (RESULTS - 1) * REG_STRIDE + COUNT;
    pack factor[(COUNT + PACK - 1) / PACK];
    real sample[WINDOW];
#pragma unroll
    for (int k = 0; k < COUNT; k += PACK) factor[k / PACK] = *reinterpret_cast<const pack*>(&factors[k]);
#pragma unroll
    for (int i = 0; i < WINDOW; ++i)
        if (i % REG_STRIDE < COUNT) sample[i] = from[i * REG_PITCH];
#pragma unroll
    for (int k = 0; k < COUNT; ++k)
#pragma unroll
        for (int r = 0; r < RESULTS; ++r) sum[r] += factor[k / PACK].value[k % PACK] * sample[r * REG_STRIDE + k];
}

#ifdef SINGLE_FORWARD
// Write y, the sum over taps of w[tap] times the sample it reads. A block for each tile.
extern "C" __global__ void __launch_bounds__(SINGLE) single(Reals x, Reals w, Target y, const Axes all) {
    SHARED_MEMORY;
    real* factors = reinterpret_cast<real*>(shared_memory);
    real* taken = factors + PAIRS * ROW;
    int* places = reinterpret_cast<int*>(taken + SAMPLES);
    int begin[OUTER + 3], of_x, of_y, outer_taps = 1;
    find_tile(all, blockIdx.x, begin);
    find_results(threadIdx.x, of_x, of_y);
    find_samples(places, all, begin);
    const bool works = threadIdx.x < UNITS_0 * UNITS_1 * UNITS_2;
#pragma unroll
    for (int d = 0; d < OUTER; ++d) outer_taps *= all.axis[d].taps;

    real sum[RESULTS] = {};
    for (int tap = 0; tap < outer_taps; ++tap) {
        long long x_at, w_at;
        if (!find_tap(all, tap, begin, x_at, w_at)) continue;  // the same for all threads
        __syncthreads();
        for (int i = threadIdx.x; i < PAIRS * REG_TAPS; i += SINGLE) {
            const int p = i / (Q_TAPS * REG_TAPS), q = i / REG_TAPS % Q_TAPS, k = i % REG_TAPS;
            const long long at = w_at + p * all.axis[OUTER + P_AXIS].w_step + q * all.axis[OUTER + Q_AXIS].w_step;
            factors[(p * Q_TAPS + q) * ROW + k / AT_ONCE * PACKED + k % AT_ONCE] = w[at + k * all.axis[OUTER + REG_AXIS].w_step];
        }
        take_samples(taken, x + x_at, all, places);
        __syncthreads();
        if (!works) continue;
#pragma unroll 1
        for (int p = 0; p < P_TAPS; ++p)
#pragma unroll 1
            for (int q = 0; q < Q_TAPS; ++q) {
                const real* from = taken + of_x + p * P_PITCH + q * Q_PITCH;
                const real* of_row = factors + (p * Q_TAPS + q) * ROW;
#pragma unroll 1
                for (int k = 0; k < REG_TAPS / AT_ONCE; ++k)
                    add_taps<AT_ONCE>(sum, from + k * AT_ONCE * REG_PITCH, of_row + k * PACKED);
                constexpr int LEFT = REG_TAPS % AT_ONCE, WHOLE = REG_TAPS / AT_ONCE;
                if (LEFT) add_taps<LEFT ? LEFT : 1>(sum, from + WHOLE * AT_ONCE * REG_PITCH, of_row + WHOLE * PACKED);
            }
    }
    __syncthreads();  // the samples are read; results take their place, so that neighbouring threads write neighbours
    if (works)
#pragma unroll
        for (int r = 0; r < RESULTS; ++r) taken[of_y + r * REG_Y_PITCH] = sum[r];
    __syncthreads();
    for (int i = threadIdx.x; i < OUTPUTS; i += SINGLE) {
        long long at;
        if (find_result(all, begin, i, at)) y[at] = taken[i];
    }
}
#endif

#ifdef SINGLE_TAPS
// Write parts[block, tap], the last tap first, the sums over the results of every gridDim.x-th tile of g times the sample that the tap reads.
// A thread has AT_ONCE taps, neighbours along REG, of every SEGMENTS-th unit of results; a row of blocks for each tap of the
// outer axes, a layer for each TAKEN rows of taps.
extern "C" __global__ void __launch_bounds__(SINGLE) single_taps(
    Reals x, Reals g, Target parts, const Axes all, int tiles
) {
    constexpr int ROWS = (REG_TAPS + AT_ONCE - 1) / AT_ONCE, UNITS = UNITS_0 * UNITS_1 * UNITS_2, SEGMENTS = SINGLE / TAKEN;
    SHARED_MEMORY;
    real* taken_x = reinterpret_cast<real*>(shared_memory);
    real* taken_g = taken_x + SAMPLES;
    int* places = reinterpret_cast<int*>(taken_g + OUTPUTS);
    const int segment = threadIdx.x % SEGMENTS, row = blockIdx.z * TAKEN + threadIdx.x / SEGMENTS;
    const int p = row / (Q_TAPS * ROWS), q = row / ROWS % Q_TAPS, first = row % ROWS * AT_ONCE;
    const bool works = threadIdx.x < TAKEN * SEGMENTS && row < PAIRS * ROWS;
    real sum[AT_ONCE] = {};
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        int begin[OUTER + 3];
        long long x_at, w_at;
        find_tile(all, tile, begin);
        if (!find_tap(all, blockIdx.y, begin, x_at, w_at)) continue;  // the same for all threads
        __syncthreads();
        find_samples(places, all, begin);
        __syncthreads();
        take_samples(taken_x, x + x_at, all, places);
        for (int i = threadIdx.x; i < OUTPUTS; i += SINGLE) {
            long long at;
            taken_g[i] = find_result(all, begin, i, at) ? g[at] : real(0);
        }
        __syncthreads();
        if (!works) continue;
        for (int unit = segment; unit < UNITS; unit += SEGMENTS) {
            const int a = unit / (UNITS_1 * UNITS_2), b = unit / UNITS_2 % UNITS_1, c = unit % UNITS_2;
            const int index[] = {a, b, c};
            int of_x, of_y, there = all.axis[OUTER + REG_AXIS].results - begin[OUTER + REG_AXIS] - index[REG_AXIS] * RESULTS;
            if (begin[OUTER + P_AXIS] + index[P_AXIS] >= all.axis[OUTER + P_AXIS].results) continue;
            if (begin[OUTER + Q_AXIS] + index[Q_AXIS] >= all.axis[OUTER + Q_AXIS].results) continue;
            find_results(unit, of_x, of_y);
            const real* from = taken_x + of_x + p * P_PITCH + q * Q_PITCH + first * REG_PITCH;
            if (there < RESULTS) {  // a product with what is beyond the results would be NaN for infinite samples
                for (int r = 0; r < there; ++r)
                    for (int k = 0; k < AT_ONCE; ++k)
                        sum[k] += taken_g[of_y + r * REG_Y_PITCH] * from[(r * REG_STRIDE + k) * REG_PITCH];
                continue;
            }
            constexpr int WINDOW = (RESULTS - 1) * REG_STRIDE + AT_ONCE;
            real of_g[RESULTS], sample[WINDOW];
#pragma unroll
            for (int r = 0; r < RESULTS; ++r) of_g[r] = taken_g[of_y + r * REG_Y_PITCH];
#pragma unroll
            for (int i = 0; i < WINDOW; ++i)
                if (i % REG_STRIDE < AT_ONCE) sample[i] = from[i * REG_PITCH];
#pragma unroll
            for (int r = 0; r < RESULTS; ++r)
#pragma unroll
                for (int k = 0; k < AT_ONCE; ++k) sum[k] += of_g[r] * sample[r * REG_STRIDE + k];
        }
    }
    __syncthreads();  // the sums of a row of taps lie side by side
    real* sums = taken_x;
    if (works)
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) sums[(threadIdx.x / SEGMENTS * AT_ONCE + k) * SEGMENTS + segment] = sum[k];
    __syncthreads();
    constexpr int ALL = PAIRS * REG_TAPS;
    for (int i = threadIdx.x; i < TAKEN * AT_ONCE; i += SINGLE) {
        const int of_row = blockIdx.z * TAKEN + i / AT_ONCE, k = of_row % ROWS * AT_ONCE + i % AT_ONCE;
        if (of_row >= PAIRS * ROWS || k >= REG_TAPS) continue;
        double total = 0;
        for (int s = 0; s < SEGMENTS; ++s) total += sums[i * SEGMENTS + (s + i) % SEGMENTS];
        const int tap = of_row / (Q_TAPS * ROWS) * P_TAP + of_row / ROWS % Q_TAPS * Q_TAP + k * REG_TAP;
        parts[((long long)(blockIdx.x + 1) * gridDim.y - blockIdx.y) * ALL - 1 - tap] = total;
    }
}
#endif

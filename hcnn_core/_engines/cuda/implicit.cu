// The products of a layer by tensor cores without a transform: filters of two axes of attributes are slid along them where
// they are, in shared memory, so that only taps that meet samples are multiplied. The axes of positions go by tables.
//
// A result is (attribute 1, attribute 2, filter), a sample (attribute 1, attribute 2), a tap (tap of the positions, tap 1,
// tap 2). A block has ACROSS x 64 positions, and DOWN groups of results: TILES values of attribute 1, 16 of what varies
// fastest. In stages it takes 16 rows of x at one tap of the positions. BACK, samples and results change places.

#ifdef IMPLICIT
constexpr int PADDED = (FILTERS + 15) / 16 * 16, OF_16 = PADDED / 16, SAMPLES_16 = (SAMPLES_2 + 15) / 16;
constexpr int FIRSTS = BACK ? SAMPLES_1 : RESULTS_1, BLOCKS_1 = (FIRSTS + TILES - 1) / TILES;
constexpr int STAGES = BACK ? RESULTS_1 * RESULTS_2 * OF_16 : SAMPLES_1 * SAMPLES_16;  // of a tap of the positions
constexpr int WIDTH = ACROSS * 64, AHEAD = WIDTH + 8, EACH = 16 * WIDTH / IMPLICIT, N = 8;

// The tap by which a result along an axis reads a sample, or -1.
__device__ inline int tap_of(int result, int sample, int step, int taps, int samples, bool wrap) {
    int tap = step * result - sample + taps / 2;
    if (wrap) tap = (tap % samples + samples) % samples;
    return tap < 0 || tap >= taps ? -1 : tap;
}
__device__ inline int tap_1(int result, int sample) { return tap_of(result, sample, STEP_1, TAPS_1, SAMPLES_1, WRAP_1); }
__device__ inline int tap_2(int result, int sample) { return tap_of(result, sample, STEP_2, TAPS_2, SAMPLES_2, WRAP_2); }

// Where a filter's number at a tap lies, so that a warp reads from all banks, whether its lanes take neighbouring taps or
// neighbouring filters.
__device__ inline int place_of(int tap, int filter) {
    return tap * PADDED + (filter ^ (tap & 2) << 2 ^ (tap & 4) ^ (PADDED % 32 ? 0 : (tap & 1) << 4));
}

// A number as tensor cores take it: rounded when it was written, unless they take it in parts.
__device__ inline float stored(float x) { return PASSES == 1 ? __uint_as_float(tf32(x)) : x; }
template <int COUNT> __device__ inline void take(Operand<COUNT>& to, int i, float x) {
    if (PASSES == 1) to.part[0][i] = __float_as_uint(x);
    else put(to, i, x);
}

// A lane's number, and the sum over four neighbouring lanes, for each of them.
__device__ inline float of_lane(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
__device__ inline float over_four(float x) {
    x += of_lane(x, threadIdx.x % LANES ^ 1);
    return x + of_lane(x, threadIdx.x % LANES ^ 2);
}

// Write out[row, targets[line] + n], sums over taps of x[row of x, reads[tap, line] + n], where reads is not -1, times the
// number of w (TAPS_1, TAPS_2, places of tap_at among all_taps, FILTERS). With a bias (rows), the ELU of the sum. A
// marginal receives the sums over attribute 1; parts[row, p / 64] the mean of 64 sums of a row, and the sum of their
// squared deviations.
extern "C" __global__ void __launch_bounds__(IMPLICIT) implicit(
    Reals x, Reals w, Table tap_at, Table reads, Table targets, Reals bias, Target out, Target marginal,
    double* __restrict__ parts, int taps, int lines, int batch, int all_taps, long long x_row, long long out_row
) {
    SHARED_MEMORY;
    constexpr int OF_TAP = TAPS_1 * TAPS_2;
    float* filters = reinterpret_cast<float*>(shared_memory);
    float* rows = filters + taps * OF_TAP * PADDED;  // two stages of 16 rows
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int group = blockIdx.y * DOWN + warp / ACROSS, column = warp % ACROSS * 64;
    const int block_1 = group / (BACK ? SAMPLES_16 : OF_16) % BLOCKS_1 * TILES;
    const int second = group / (BACK ? SAMPLES_16 : OF_16) / BLOCKS_1;  // of the results
    const int first_row = group % (BACK ? SAMPLES_16 : OF_16) * 16;
    const bool active = BACK ? second == 0 : second < RESULTS_2;

    for (int k = threadIdx.x; k < taps * OF_TAP * PADDED; k += IMPLICIT) {
        const int tap = k / PADDED, filter = k % PADDED;
        const int from = tap % OF_TAP * all_taps + tap_at[tap / OF_TAP];
        filters[place_of(tap, filter)] = filter < FILTERS ? stored(w[(long long)from * FILTERS + filter]) : 0.0f;
    }
    // what this thread takes of each stage: one position of every EACH-th row
    const int own = threadIdx.x % WIDTH, own_row = threadIdx.x / WIDTH, own_position = blockIdx.x * WIDTH + own;
    const bool there = own_position < lines * batch;
    const int own_line = there ? own_position / batch : 0, within = own_position % batch;
    float ahead[EACH];
    const auto fetch = [&](int stage) {
        const int part = stage % STAGES;
        const int first = BACK ? part / OF_16 * FILTERS + part % OF_16 * 16 : part / SAMPLES_16 * SAMPLES_2 + part % SAMPLES_16 * 16;
        const int count = BACK ? FILTERS - part % OF_16 * 16 : SAMPLES_2 - part % SAMPLES_16 * 16;
        const int place = reads[stage / STAGES * lines + own_line];
#pragma unroll
        for (int e = 0; e < EACH; ++e) {
            const int row = own_row + e * (IMPLICIT / WIDTH);
            const bool taken = there && place >= 0 && row < count;
            ahead[e] = taken ? x[(first + row) * x_row + (long long)place * batch + within] : 0.0f;
        }
    };
    const auto put_down = [&](int stage) {
#pragma unroll
        for (int e = 0; e < EACH; ++e)
            rows[(stage % 2 * 16 + own_row + e * (IMPLICIT / WIDTH)) * AHEAD + own] = stored(ahead[e]);
    };

    float sum[TILES][N][4] = {}, total[TILES][N][4] = {};
    fetch(0);
    put_down(0);
    __syncthreads();
    for (int stage = 0; stage < taps * STAGES; ++stage) {
        if (stage + 1 < taps * STAGES) fetch(stage + 1);
        if (PASSES == 3 && stage % 2 == 0) flush(total, sum);  // after twelve products at most
        const int part = stage % STAGES, tap = stage / STAGES;
        const int other_1 = BACK ? part / OF_16 / RESULTS_2 : part / SAMPLES_16;
        const int of_row = first_row + i, sample = part % SAMPLES_16 * 16;
        const int result_2 = BACK ? part / OF_16 % RESULTS_2 : second;
#pragma unroll
        for (int k = 0; k < 16; k += 8) {
            if (!active || (!BACK && sample + k >= SAMPLES_2)) continue;
            // the taps of both rows of the lane, or of both its columns
            const int near = BACK ? tap_2(result_2, of_row) : tap_2(result_2, sample + k + j);
            const int far = BACK ? tap_2(result_2, of_row + 8) : tap_2(result_2, sample + k + j + 4);
            if (!BACK && !WRAP_2) {
                const int most = STEP_2 * result_2 - sample - k + TAPS_2 / 2;
                if (most < 0 || most - 7 >= TAPS_2) continue;
            }
            Operand<4> a[TILES];
            bool meets[TILES];
#pragma unroll
            for (int m = 0; m < TILES; ++m) {
                const int first = block_1 + m, tap1 = BACK ? tap_1(other_1, first) : tap_1(first, other_1);
                meets[m] = first < FIRSTS && tap1 >= 0;
                if (!meets[m]) continue;
                const int at = (tap * TAPS_1 + tap1) * TAPS_2;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int tap2 = (BACK ? e % 2 : e / 2) ? far : near;
                    const int filter = BACK ? part % OF_16 * 16 + k + j + e / 2 * 4 : of_row + e % 2 * 8;
                    take(a[m], e, tap2 < 0 ? 0.0f : filters[place_of(at + tap2, filter)]);
                }
            }
            const float* from = rows + (stage % 2 * 16 + k + j) * AHEAD + column + i;
#pragma unroll
            for (int n = 0; n < N; ++n) {
                Operand<2> b;
                take(b, 0, from[n * 8]);
                take(b, 1, from[4 * AHEAD + n * 8]);
#pragma unroll
                for (int m = 0; m < TILES; ++m)
                    if (meets[m]) multiply_add(sum[m][n], a[m], b);
            }
        }
        if (stage + 1 < taps * STAGES) put_down(stage + 1);
        __syncthreads();
    }
    if (PASSES == 3) flush(sum, total);
    if (!active) return;
    const int first_position = blockIdx.x * WIDTH + column, left = min(64, lines * batch - first_position);
    if (!BACK && parts && left > 0)
#pragma unroll
        for (int m = 0; m < TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float origin = of_lane(sum[m][0][half * 2], lane - j);  // differences from it lose few digits
                float mean = 0, squares = 0;
#pragma unroll
                for (int k = 0; k < 2 * N; ++k)
                    if (k / 2 * 8 + 2 * j + k % 2 < left) mean += sum[m][k / 2][half * 2 + k % 2] - origin;
                mean = over_four(mean) / left;
#pragma unroll
                for (int k = 0; k < 2 * N; ++k) {
                    const float deviation = sum[m][k / 2][half * 2 + k % 2] - origin - mean;
                    if (k / 2 * 8 + 2 * j + k % 2 < left) squares += deviation * deviation;
                }
                squares = over_four(squares);
                const int last = first_row + i + half * 8;
                if (j || block_1 + m >= FIRSTS || last >= FILTERS) continue;
                const int row = ((block_1 + m) * RESULTS_2 + second) * FILTERS + last;
                double* to = parts + ((long long)row * ((lines * batch + 63) / 64) + first_position / 64) * 2;
                to[0] = (double)origin + mean;
                to[1] = squares;
            }
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const int p = blockIdx.x * WIDTH + column + n * 8 + 2 * j + c, last = first_row + i + half * 8;
                if (p >= lines * batch || last >= (BACK ? SAMPLES_2 : FILTERS)) continue;
                const long long to = (long long)targets[p / batch] * batch + p % batch;
                float over_1 = 0;
#pragma unroll
                for (int m = 0; m < TILES; ++m) {
                    if (block_1 + m >= FIRSTS) continue;
                    const int row = BACK ? (block_1 + m) * SAMPLES_2 + last : ((block_1 + m) * RESULTS_2 + second) * FILTERS + last;
                    const float value = bias ? elu(sum[m][n][half * 2 + c] + bias[row]) : sum[m][n][half * 2 + c];
                    out[row * out_row + to] = value;
                    over_1 += value;
                }
                if (marginal) marginal[(second * FILTERS + last) * out_row + to] = over_1;
            }
}
#endif

#if defined IMPLICIT_TAPS
// The cotangent of the filters. A block sums over positions, GROUP taps of these at a time; each warp has every eighth value
// of attribute 2 of the result, 16 filters, all values of tap 1, and those of tap 2 in tiles of eight.
constexpr int OF_8 = (TAPS_2 + 7) / 8, WARPS = IMPLICIT_TAPS / LANES, PITCH = POSITIONS + 4;
constexpr int G_ROWS = RESULTS_1 * RESULTS_2 * 16, X_ROWS = SAMPLES_1 * SAMPLES_2;

// The sample that a result along an axis reads by a tap, or -1.
__device__ constexpr int sample_of(int result, int tap, int step, int taps, int samples, bool wrap) {
    return wrap ? ((step * result - tap + taps / 2) % samples + samples) % samples
        : step * result - tap + taps / 2 >= samples ? -1 : step * result - tap + taps / 2;
}

// Write parts[block, tap 1, tap 2, tap, filter], sums over the positions of each block of g[row, p] times x[row of x,
// reads[tap, line of p]].
extern "C" __global__ void __launch_bounds__(IMPLICIT_TAPS) implicit_taps(
    Reals g, Reals x, Table reads, Target parts, int taps, int lines, int batch, long long g_row, long long x_row
) {
    SHARED_MEMORY;
    float* buffers = reinterpret_cast<float*>(shared_memory);  // two of them
    constexpr int BUFFER = (G_ROWS + GROUP * X_ROWS) * PITCH, EVERY = IMPLICIT_TAPS / POSITIONS;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int first_tap = blockIdx.y * GROUP, first_filter = blockIdx.z * 16, positions = lines * batch;
    const int chunks = (positions + POSITIONS - 1) / POSITIONS;
    const int own = threadIdx.x % POSITIONS, own_row = threadIdx.x / POSITIONS;

    const auto fetch = [&](int chunk, int to) {  // nothing beyond the last chunk, since the sums take its place
        const int p = chunk * POSITIONS + own;
        const bool there = p < positions;
        const int line = there ? p / batch : 0, within = there ? p % batch : 0;
        float* buffer = buffers + to * BUFFER + own;
        for (int row = own_row; row < G_ROWS && chunk < chunks; row += EVERY) {
            const int filter = first_filter + row % 16;
            const bool taken = there && filter < FILTERS;
            begin_copy(buffer + row * PITCH, g + (taken ? (row / 16 * FILTERS + filter) * g_row + p : 0), taken);
        }
        for (int k = 0; k < GROUP && chunk < chunks; ++k) {
            const int place = there && first_tap + k < taps ? reads[(first_tap + k) * lines + line] : -1;
            const long long from = place < 0 ? 0 : (long long)place * batch + within;
            for (int row = own_row; row < X_ROWS; row += EVERY)
                begin_copy(buffer + (G_ROWS + k * X_ROWS + row) * PITCH, x + (place < 0 ? 0 : row * x_row + from), place >= 0);
        }
        end_group();
    };

    float sum[GROUP][TAPS_1][OF_8][4] = {}, total[GROUP][TAPS_1][OF_8][4] = {};
    int turn = 0;
    fetch(blockIdx.x, 0);
    for (int chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x, turn ^= 1) {
        fetch(chunk + gridDim.x, turn ^ 1);
        wait_for_all_but_one();
        __syncthreads();
        const float* of_g = buffers + turn * BUFFER;
        const float* of_x = of_g + G_ROWS * PITCH;
        for (int second = warp; second < RESULTS_2; second += WARPS) {
            int row_2[OF_8];
#pragma unroll
            for (int n = 0; n < OF_8; ++n) {
                const int tap = n * 8 + i, row = sample_of(second, tap, STEP_2, TAPS_2, SAMPLES_2, WRAP_2);
                row_2[n] = tap < TAPS_2 ? row : -1;
            }
            for (int p = 0; p < POSITIONS; p += 8) {
                if (PASSES == 3)  // after as many products as results of attribute 1 meet a tap, three times
#pragma unroll
                    for (int k = 0; k < GROUP; ++k) flush(total[k], sum[k]);
                Operand<4> a[RESULTS_1];
#pragma unroll
                for (int first = 0; first < RESULTS_1; ++first)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        put(a[first], e, of_g[((first * RESULTS_2 + second) * 16 + i + e % 2 * 8) * PITCH + p + j + e / 2 * 4]);
#pragma unroll
                for (int k = 0; k < GROUP; ++k)
#pragma unroll
                    for (int row_1 = 0; row_1 < SAMPLES_1; ++row_1)
#pragma unroll
                        for (int n = 0; n < OF_8; ++n) {
                            const float* from = of_x + (k * X_ROWS + row_1 * SAMPLES_2 + max(row_2[n], 0)) * PITCH + p + j;
                            Operand<2> b;
                            put(b, 0, row_2[n] < 0 ? 0.0f : from[0]);
                            put(b, 1, row_2[n] < 0 ? 0.0f : from[4]);
#pragma unroll
                            for (int first = 0; first < RESULTS_1; ++first)
#pragma unroll
                                for (int tap = 0; tap < TAPS_1; ++tap)
                                    if (sample_of(first, tap, STEP_1, TAPS_1, SAMPLES_1, WRAP_1) == row_1)
                                        multiply_add(sum[k][tap][n], a[first], b);
                        }
            }
        }
        __syncthreads();
    }
    if (PASSES == 3)
#pragma unroll
        for (int k = 0; k < GROUP; ++k) flush(sum[k], total[k]);
    // the warps add up, one tap of the positions after the other
    float* part = buffers;
    constexpr int ALL = TAPS_1 * OF_8 * 8 * 16;
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
#pragma unroll
        for (int tap = 0; tap < TAPS_1; ++tap)
#pragma unroll
            for (int n = 0; n < OF_8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    part[warp * ALL + ((tap * OF_8 + n) * 8 + 2 * j + e % 2) * 16 + i + e / 2 * 8] = sum[k][tap][n][e];
        __syncthreads();
        for (int at = threadIdx.x; at < ALL; at += IMPLICIT_TAPS) {
            const int filter = first_filter + at % 16, tap_2 = at / 16 % (OF_8 * 8), tap_1 = at / 16 / (OF_8 * 8);
            float all = 0;
            for (int w = 0; w < WARPS; ++w) all += part[w * ALL + at];
            const long long tap = ((long long)blockIdx.x * TAPS_1 + tap_1) * TAPS_2 + tap_2;
            if (filter < FILTERS && tap_2 < TAPS_2 && first_tap + k < taps) parts[(tap * taps + first_tap + k) * FILTERS + filter] = all;
        }
        __syncthreads();
    }
}
#endif

// The products of a layer by tensor cores without a transform: filters of two axes of attributes are slid along them where
// they are, in shared memory, so that only taps that meet samples are multiplied. The axes of positions go by tables.
//
// A result is (attribute 1, attribute 2, filter), a sample (attribute 1, attribute 2), a tap (tap of the positions, tap 1,
// tap 2). A block has 64 positions and DOWN groups of results: TILES values of attribute 1, 16 of what varies fastest. In
// stages it takes 16 rows of x, at one tap of the positions, for each of SHARES: a group's warps, which add up at the end.
// BACK, samples and results change places.

#ifdef IMPLICIT
constexpr int PADDED = (FILTERS + 15) / 16 * 16, OF_16 = PADDED / 16, SAMPLES_16 = (SAMPLES_2 + 15) / 16;
constexpr int FIRSTS = BACK ? SAMPLES_1 : RESULTS_1, BLOCKS_1 = (FIRSTS + TILES - 1) / TILES;
constexpr int ROWS = BACK ? SAMPLES_2 : FILTERS, ROWS_16 = (ROWS + 15) / 16, OF_FIRST = (TAPS_2 + 1) * PADDED;
constexpr int COUNT = BACK ? FILTERS : SAMPLES_2, COUNT_16 = (COUNT + 15) / 16;  // rows of x of one value of the others
constexpr int ALL_16 = (BACK ? RESULTS_1 * RESULTS_2 : SAMPLES_1) * COUNT_16, STAGES = (ALL_16 / COUNT_16 + SHARES - 1) / SHARES * COUNT_16;
constexpr int WIDTH = 64, PITCH = 2 * WIDTH + 8, N = 8, DOWN = IMPLICIT / LANES / SHARES, READ = PIECE > 1 ? 2 : 1;
static_assert(IMPLICIT == 256, "a thread takes two rows of two positions");

// The tap by which a result along an axis reads a sample; at least `taps` where none does.
__device__ inline unsigned tap_of(int result, int sample, int step, int taps, int samples, bool wrap) {
    const int tap = step * result - sample + taps / 2;
    return wrap ? (tap % samples + samples) % samples : tap;
}

// Where the numbers of a tap of attribute 2 lie from `at` on, as lanes take them: pairs of filters 8, or BACK, 4 apart. Those
// of neighbouring taps lie in other banks. A row of zeros follows all taps, for samples that none meets.
__device__ inline int place_of(unsigned tap, int at) { return tap * PADDED + (at ^ (PADDED % 32 ? (tap & 2) << 2 : (tap & 3) << 3)); }
__device__ inline int place_at(int result, int sample, int at) {
    return place_of(min(tap_of(result, sample, STEP_2, TAPS_2, SAMPLES_2, WRAP_2), (unsigned)TAPS_2), at);
}
__device__ inline int in_pairs(int filter) {
    return filter / 16 * 16 + (BACK ? filter & 8 | filter % 4 * 2 | filter / 4 % 2 : filter % 8 * 2 | filter / 8 % 2);
}

// Let the compiler keep a number, which it would make again wherever it is used.
__device__ inline void keep(int& x) { asm volatile("" : "+r"(x)); }

// A lane's number, and the sum over four neighbouring lanes, for each of them.
__device__ inline float of_lane(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }
__device__ inline float over_four(float x) {
    x += of_lane(x, threadIdx.x % LANES ^ 1);
    return x + of_lane(x, threadIdx.x % LANES ^ 2);
}

// Write out[row, targets[line] + n], sums over taps of x[row of x, reads[tap, line] + n], where reads is not -1, times the
// number of w (TAPS_1, TAPS_2, places of tap_at among all_taps, FILTERS). `phases` begins with the number of taps, that of
// lines, and the place of tap_at, reads and targets, for each of gridDim.z. With a bias (rows), the ELU of the sum. A
// marginal receives the sums over attribute 1; parts[row, p / 64] the mean of 64 sums of a row, and the sum of their
// squared deviations.
extern "C" __global__ void __launch_bounds__(IMPLICIT, BESIDE) implicit(
    Reals x, Reals w, Table phases, Reals bias, Target out, Target marginal, double* __restrict__ parts, int batch,
    int all_taps, int x_row, int out_row
) {
    SHARED_MEMORY;
    const int taps = phases[3 * blockIdx.z], lines = phases[3 * blockIdx.z + 1], positions = lines * batch;
    if (blockIdx.x * WIDTH >= positions) return;
    const int* tap_at = phases + phases[3 * blockIdx.z + 2];
    const int* reads = tap_at + taps;
    const int* targets = reads + taps * lines;
    float* filters = reinterpret_cast<float*>(shared_memory);
    float* rows = filters + taps * TAPS_1 * OF_FIRST;  // two stages, of pairs of rows 4 apart
    const int lane = threadIdx.x % LANES, warp = __shfl_sync(0xffffffffu, threadIdx.x / LANES, 0), i = lane / 4, j = lane % 4;
    const int share = warp / DOWN, group = blockIdx.y * DOWN + warp % DOWN;
    const int block_1 = group / ROWS_16 % BLOCKS_1 * TILES, first_row = group % ROWS_16 * 16;
    const int second = group / ROWS_16 / BLOCKS_1;  // of the results
    const bool active = second < (BACK ? 1 : RESULTS_2);

    for (int k = threadIdx.x; k < taps * TAPS_1 * OF_FIRST; k += IMPLICIT) {
        const int row = k / PADDED, filter = k % PADDED, tap_2 = row % (TAPS_2 + 1), tap_1 = row / (TAPS_2 + 1);
        const int from = (tap_1 % TAPS_1 * TAPS_2 + tap_2) * all_taps + tap_at[tap_1 / TAPS_1];
        const bool taken = tap_2 < TAPS_2 && filter < FILTERS;
        filters[tap_1 * OF_FIRST + place_of(tap_2, in_pairs(filter))] = taken ? stored(w[(long long)from * FILTERS + filter]) : 0.0f;
    }
    // what this thread takes of each stage: two positions of two rows
    const int own = blockIdx.x * WIDTH + threadIdx.x % 32 * 2, own_row = warp / 4 * 8 + warp % 4;
    const float* from_tap[2 / READ];
    bool there[2 / READ];
    const long long rows_4 = 4 * (long long)x_row, of_share = (long long)STAGES / COUNT_16 * COUNT * x_row;
    Few<READ> ahead[SHARES][2 / READ][2];
    const auto fetch = [&](unsigned stage) {
        const unsigned part = stage % STAGES, first = part / COUNT_16 * COUNT + part % COUNT_16 * 16;
#pragma unroll
        for (int v = 0; v < 2; v += READ) {
            if (part == 0) {
                const int line = min(own + v, positions - 1) / batch, place = reads[stage / STAGES * lines + line];
                there[v] = own + v < positions && place >= 0;
                from_tap[v] = x + ((long long)own_row * x_row + (there[v] ? place * batch + own + v - line * batch : 0));
            }
            const float* from = from_tap[v] + first * (long long)x_row;
#pragma unroll
            for (int s = 0; s < SHARES; ++s)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const bool taken = (COUNT % 16 == 0 || part % COUNT_16 * 16 + e * 4 + own_row < COUNT) && (ALL_16 % SHARES == 0 || part + s * STAGES < ALL_16);
                    ahead[s][v][e] = there[v] && taken ? *reinterpret_cast<const Few<READ>*>(from + s * of_share + e * rows_4) : Few<READ>{};
                }
        }
    };
    const auto put_down = [&](unsigned stage) {
#pragma unroll
        for (int s = 0; s < SHARES; ++s) {
            Few<4> to;
            to.value[0] = stored(ahead[s][0][0].value[0]), to.value[2] = stored(ahead[s][1 / READ][0].value[READ - 1]);
            to.value[1] = stored(ahead[s][0][1].value[0]), to.value[3] = stored(ahead[s][1 / READ][1].value[READ - 1]);
            const int pair = (stage % 2 * SHARES + s) * 8 + warp;
            *reinterpret_cast<Few<4>*>(rows + pair * PITCH + lane * 4) = to;
        }
    };
    // where the numbers of filters lie that the lane takes of a tap, of both its columns, or of both its rows, by k
    int near[2], far[2];
    const auto locate = [&](unsigned part) {
        const int result_2 = BACK ? part / OF_16 % RESULTS_2 : second, sample = BACK ? first_row + i : part % SAMPLES_16 * 16 + j;
        const int at = BACK ? part % OF_16 * 16 + 2 * j : first_row + 2 * i;
        near[0] = place_at(result_2, sample, at), far[0] = place_at(result_2, sample + (BACK ? 8 : 4), at);
        near[1] = BACK ? near[0] ^ 8 : place_at(result_2, sample + 8, at), far[1] = BACK ? far[0] ^ 8 : place_at(result_2, sample + 12, at);
        keep(near[0]), keep(near[1]), keep(far[0]), keep(far[1]);
    };
    if (!BACK && SAMPLES_16 == 1) locate(0);

    float sum[TILES][N][4] = {};
    fetch(0);
    put_down(0);
    __syncthreads();
    for (unsigned stage = 0; stage < taps * STAGES; ++stage) {
        if (stage + 1 < taps * STAGES) fetch(stage + 1);
        const unsigned part = stage % STAGES + share * STAGES, other_1 = BACK ? part / OF_16 / RESULTS_2 : part / SAMPLES_16;
        if (BACK || SAMPLES_16 > 1) locate(part);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const int sample = part % SAMPLES_16 * 16 + k * 8, most = STEP_2 * second - sample + TAPS_2 / 2;
            if (!active || (ALL_16 % SHARES && part >= ALL_16)) continue;
            if (!BACK && (sample >= SAMPLES_2 || (!WRAP_2 && (most < 0 || most - 7 >= TAPS_2)))) continue;
            // position 16 * q + 2 * i + v is column i of tile 2 * q + v
            const float* from = rows + ((stage % 2 * SHARES + share) * 8 + k * 4 + j) * PITCH + 4 * i;
            unsigned b[N][2];
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                const Few<4> of_two = *reinterpret_cast<const Few<4>*>(from + n * 16);
#pragma unroll
                for (int e = 0; e < 4; ++e) b[n + e / 2][e % 2] = __float_as_uint(of_two.value[e]);
            }
#pragma unroll
            for (int m = 0; m < TILES; ++m) {
                const unsigned first = block_1 + m, tap_1 = BACK ? tap_of(other_1, first, STEP_1, TAPS_1, SAMPLES_1, WRAP_1)
                    : tap_of(first, other_1, STEP_1, TAPS_1, SAMPLES_1, WRAP_1);
                if ((FIRSTS % TILES && first >= FIRSTS) || tap_1 >= TAPS_1) continue;
                const float* of_tap = filters + (stage / STAGES * TAPS_1 + tap_1) * OF_FIRST;
                const Few<2> of_near = *reinterpret_cast<const Few<2>*>(of_tap + near[k]);
                const Few<2> of_far = *reinterpret_cast<const Few<2>*>(of_tap + far[k]);
                const float both[4] = {of_near.value[0], of_near.value[1], of_far.value[0], of_far.value[1]};
                unsigned a[4];
#pragma unroll
                for (int e = 0; e < 4; ++e) a[e] = __float_as_uint(both[BACK ? e / 2 + e % 2 * 2 : e]);
#pragma unroll
                for (int n = 0; n < N; ++n) mma(sum[m][n], a, b[n]);
            }
        }
        if (stage + 1 < taps * STAGES) put_down(stage + 1);
        __syncthreads();
    }
    for (int s = 1; s < SHARES; ++s) {  // the warps of a group add up
        float* part = filters + warp % DOWN * (TILES * N * 4 * LANES) + lane;
        if (share == s)
#pragma unroll
            for (int k = 0; k < TILES * N * 4; ++k) part[k * LANES] = sum[k / (N * 4)][k / 4 % N][k % 4];
        __syncthreads();
        if (share == 0)
#pragma unroll
            for (int k = 0; k < TILES * N * 4; ++k) sum[k / (N * 4)][k / 4 % N][k % 4] += part[k * LANES];
        __syncthreads();
    }
    if (!active || share) return;
    const int begin = blockIdx.x * WIDTH, left = min(WIDTH, positions - begin);
    if (!BACK && parts)
#pragma unroll
        for (int m = 0; m < TILES; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float origin = of_lane(sum[m][0][half * 2], lane - j);  // differences from it lose few digits
                float mean = 0, squares = 0;
#pragma unroll
                for (int k = 0; k < 2 * N; ++k)
                    if (k / 4 * 16 + j * 4 + k % 4 < left) mean += sum[m][k / 4 * 2 + k % 2][half * 2 + k / 2 % 2] - origin;
                mean = over_four(mean) / left;
#pragma unroll
                for (int k = 0; k < 2 * N; ++k) {
                    const float deviation = sum[m][k / 4 * 2 + k % 2][half * 2 + k / 2 % 2] - origin - mean;
                    if (k / 4 * 16 + j * 4 + k % 4 < left) squares += deviation * deviation;
                }
                squares = over_four(squares);
                const int last = first_row + i + half * 8;
                if (j || block_1 + m >= FIRSTS || last >= FILTERS) continue;
                const int row = ((block_1 + m) * RESULTS_2 + second) * FILTERS + last;
                double* to = parts + ((long long)row * ((positions + WIDTH - 1) / WIDTH) + blockIdx.x) * 2;
                to[0] = (double)origin + mean;
                to[1] = squares;
            }
#pragma unroll
    for (int k = 0; k < 2 * N; k += PIECE) {
        const int p = begin + k / 4 * 16 + j * 4 + k % 4;
        if (p >= positions) continue;
        const int to = targets[p / batch] * batch + p % batch;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int last = first_row + i + half * 8;
            if (last >= ROWS) continue;
            Few<PIECE> over_1 = {};
#pragma unroll
            for (int m = 0; m < TILES; ++m) {
                if (block_1 + m >= FIRSTS) continue;
                const int row = BACK ? (block_1 + m) * SAMPLES_2 + last : ((block_1 + m) * RESULTS_2 + second) * FILTERS + last;
                Few<PIECE> some;
#pragma unroll
                for (int v = 0; v < PIECE; ++v) {
                    const float value = sum[m][(k + v) / 4 * 2 + (k + v) % 2][half * 2 + (k + v) / 2 % 2];
                    some.value[v] = bias ? elu(value + bias[row]) : value;
                    over_1.value[v] += some.value[v];
                }
                *reinterpret_cast<Few<PIECE>*>(out + row * out_row + to) = some;
            }
            if (marginal) *reinterpret_cast<Few<PIECE>*>(marginal + (second * FILTERS + last) * out_row + to) = over_1;
        }
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
    Reals g, Reals x, Table reads, Target parts, int taps, int lines, int batch, int g_row, int x_row
) {
    SHARED_MEMORY;
    float* buffers = reinterpret_cast<float*>(shared_memory);  // two of them
    constexpr int BUFFER = (G_ROWS + GROUP * X_ROWS) * PITCH, EVERY = IMPLICIT_TAPS / (POSITIONS / PIECE);
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int first_tap = blockIdx.y * GROUP, first_filter = blockIdx.z * 16, positions = lines * batch;
    const int chunks = (positions + POSITIONS - 1) / POSITIONS;
    const int own = threadIdx.x % (POSITIONS / PIECE) * PIECE, own_row = threadIdx.x / (POSITIONS / PIECE);

    const auto fetch = [&](int chunk, int to) {
        if (chunk < chunks) {  // nothing beyond the last, since the sums take its place
            const int p = chunk * POSITIONS + own;
            const bool there = p < positions;
            const int line = there ? p / batch : 0, within = there ? p % batch : 0;
            float* buffer = buffers + to * BUFFER + own;
#pragma unroll
            for (int row = own_row; row < G_ROWS; row += EVERY) {
                const int filter = first_filter + row % 16;
                const bool taken = there && filter < FILTERS;
                begin_copy<PIECE>(buffer + row * PITCH, g + (taken ? (row / 16 * FILTERS + filter) * g_row + p : 0), taken);
            }
#pragma unroll
            for (int k = 0; k < GROUP; ++k) {
                const int place = there && first_tap + k < taps ? reads[(first_tap + k) * lines + line] : -1;
                const float* from = x + (place < 0 ? 0 : place * batch + within);
#pragma unroll
                for (int row = own_row; row < X_ROWS; row += EVERY)
                    begin_copy<PIECE>(buffer + (G_ROWS + k * X_ROWS + row) * PITCH, from + (place < 0 ? 0 : row * x_row), place >= 0);
            }
        }
        end_group();
    };
    const auto round_own = [&](int to) {  // the copies of this thread, which have arrived
        float* buffer = buffers + to * BUFFER + own;
#pragma unroll
        for (int row = own_row; row < G_ROWS; row += EVERY) round_few<PIECE>(buffer + row * PITCH);
#pragma unroll
        for (int k = 0; k < GROUP; ++k)
#pragma unroll
            for (int row = own_row; row < X_ROWS; row += EVERY) round_few<PIECE>(buffer + (G_ROWS + k * X_ROWS + row) * PITCH);
    };

    float sum[GROUP][TAPS_1][OF_8][4] = {};
    int turn = 0;
    fetch(blockIdx.x, 0);
    for (int chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x, turn ^= 1) {
        fetch(chunk + gridDim.x, turn ^ 1);
        wait_for_all_but_one();
        round_own(turn);
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
                unsigned a[RESULTS_1][4];
#pragma unroll
                for (int first = 0; first < RESULTS_1; ++first)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        a[first][e] = __float_as_uint(of_g[((first * RESULTS_2 + second) * 16 + i + e % 2 * 8) * PITCH + p + j + e / 2 * 4]);
#pragma unroll
                for (int k = 0; k < GROUP; ++k)
#pragma unroll
                    for (int row_1 = 0; row_1 < SAMPLES_1; ++row_1)
#pragma unroll
                        for (int n = 0; n < OF_8; ++n) {
                            const float* from = of_x + (k * X_ROWS + row_1 * SAMPLES_2 + max(row_2[n], 0)) * PITCH + p + j;
                            unsigned b[2];
#pragma unroll
                            for (int e = 0; e < 2; ++e) b[e] = __float_as_uint(row_2[n] < 0 ? 0.0f : from[4 * e]);
#pragma unroll
                            for (int first = 0; first < RESULTS_1; ++first)
#pragma unroll
                                for (int tap = 0; tap < TAPS_1; ++tap)
                                    if (sample_of(first, tap, STEP_1, TAPS_1, SAMPLES_1, WRAP_1) == row_1)
                                        mma(sum[k][tap][n], a[first], b);
                        }
            }
        }
        __syncthreads();
    }
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

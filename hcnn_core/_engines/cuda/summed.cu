// Convolutions with channels that are summed, by tensor cores. A block has a tile of results: PLACES places of the convolved
// axes, eight elements of the batch at each, 16 * TILES rows. The samples that the tile reads, EXT places with the boundary
// around it, and the filters at all taps lie in shared memory, eight channels at a time. Each sample is read from there for
// all taps and rows. `reads` has a place or -1 for each place of each tile, `starts` and `offsets` say where in a tile the
// first tap of each result lies, and how far from it the others. Copies of the next channels go on while these are multiplied.

#ifdef RESULTS
constexpr int EIGHT = 8;  // elements of the batch, and channels, at a time: what tensor cores take

// The least pitch of rows of `count` numbers that is `shift` beyond a multiple of all banks.
__device__ constexpr int pitch_of(int count, int shift) { return (count + 31) / 32 * 32 + shift; }
#endif

#ifdef SUMMED
constexpr int ROWS = 16 * TILES, W_PITCH = ROWS + 8, X_PITCH = pitch_of(EXT * EIGHT, 8), W_SIZE = ALL_TAPS * EIGHT * W_PITCH;
constexpr int STAGE = W_SIZE + EIGHT * X_PITCH, STAGES = (CHANNELS + EIGHT - 1) / EIGHT, N = 8;

// The row and channel of a number of a stage's filters, in the order of w, and its tap.
__device__ inline int of_w_number(int k, int& row, int& channel) {
    channel = BACK ? k % EIGHT : k / ROWS % EIGHT, row = BACK ? k / EIGHT % ROWS : k % ROWS;
    return k / (EIGHT * ROWS);
}

// Write out[row, targets[tile, place] * batch + n], sums over taps and channels of x[channel, place of the tap * batch + n]
// times w[channel, tap_at[tap], row]; BACK, times w[row, tap_at[tap], channel]; numbers of the last axis lie side by side,
// and the strides of the others are given. With a bias (rows), the ELU of the sum. With one tile a thread has 80 registers,
// since left to itself ptxas takes 64 and spills.
extern "C" __global__ void __launch_bounds__(SUMMED, TILES == 1 ? 768 / SUMMED : 1) summed(
    Reals x, Reals w, Table tap_at, Table reads, Table targets, Table starts, Table offsets, Reals bias, Target out,
    int batch, int x_row, int out_row, int w_first, int w_tap
) {
    SHARED_MEMORY;
    __shared__ int places[EXT], taps[ALL_TAPS], offset[ALL_TAPS];
    float* stages = reinterpret_cast<float*>(shared_memory);  // two of them: filters, then samples
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int of_batch = (batch + EIGHT - 1) / EIGHT, tile = blockIdx.x / of_batch, first_n = blockIdx.x % of_batch * EIGHT;
    const int first_row = blockIdx.y * ROWS;

    for (int e = threadIdx.x; e < EXT; e += SUMMED) places[e] = reads[tile * EXT + e];
    for (int t = threadIdx.x; t < ALL_TAPS; t += SUMMED) {
        taps[t] = tap_at[t];
        offset[t] = offsets[t] * EIGHT;
    }
    __syncthreads();
    const auto fetch = [&](int stage) {
        float* to_w = stages + stage % 2 * STAGE;
        float* to_x = to_w + W_SIZE;
        for (int k = threadIdx.x * W_PIECE; k < ALL_TAPS * EIGHT * ROWS && stage < STAGES; k += SUMMED * W_PIECE) {
            int row, channel;
            const int tap = of_w_number(k, row, channel), c = stage * EIGHT + channel, r = first_row + row;
            const bool taken = c < CHANNELS && r < RESULTS;
            const int at = taps[tap] * w_tap + (BACK ? r * w_first + c : c * w_first + r);
            begin_copy<W_PIECE>(to_w + (tap * EIGHT + channel) * W_PITCH + row, w + (taken ? at : 0), taken);
        }
        for (int k = threadIdx.x * PIECE; k < EIGHT * EXT * EIGHT && stage < STAGES; k += SUMMED * PIECE) {
            const int n = k % EIGHT, e = k / EIGHT % EXT, channel = k / (EIGHT * EXT), c = stage * EIGHT + channel;
            const bool taken = places[e] >= 0 && c < CHANNELS && first_n + n < batch;
            const int at = c * x_row + places[e] * batch + first_n + n;
            begin_copy<PIECE>(to_x + channel * X_PITCH + e * EIGHT + n, x + (taken ? at : 0), taken);
        }
        end_group();
    };
    const auto round_own = [&](int stage) {  // the copies of this thread, which have arrived
        float* own = stages + stage % 2 * STAGE;
        for (int k = threadIdx.x * W_PIECE; k < ALL_TAPS * EIGHT * ROWS; k += SUMMED * W_PIECE) {
            int row, channel;
            const int tap = of_w_number(k, row, channel);
            round_few<W_PIECE>(own + (tap * EIGHT + channel) * W_PITCH + row);
        }
        for (int k = threadIdx.x * PIECE; k < EIGHT * EXT * EIGHT; k += SUMMED * PIECE)
            round_few<PIECE>(own + W_SIZE + k / (EIGHT * EXT) * X_PITCH + k % (EIGHT * EXT));
    };

    int start[N];
#pragma unroll
    for (int n = 0; n < N; ++n) start[n] = starts[warp * N + n] * EIGHT;
    float sum[TILES][N][4] = {};
    fetch(0);
    for (int stage = 0; stage < STAGES; ++stage) {
        fetch(stage + 1);
        wait_for_all_but_one();
        round_own(stage);
        __syncthreads();
        const float* of_w = stages + stage % 2 * STAGE + j * W_PITCH + i;
        const float* of_x = stages + stage % 2 * STAGE + W_SIZE + j * X_PITCH + i;
#pragma unroll 1
        for (int tap = 0; tap < ALL_TAPS; ++tap) {
            unsigned a[TILES][4];
#pragma unroll
            for (int m = 0; m < TILES; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) a[m][e] = __float_as_uint(of_w[(tap * EIGHT + e / 2 * 4) * W_PITCH + m * 16 + e % 2 * 8]);
            const float* from = of_x + offset[tap];
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const unsigned b[2] = {__float_as_uint(from[start[n]]), __float_as_uint(from[4 * X_PITCH + start[n]])};
#pragma unroll
                for (int m = 0; m < TILES; ++m) mma(sum[m][n], a[m], b);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const int target = targets[tile * PLACES + warp * N + n];
        if (target < 0) continue;
#pragma unroll
        for (int m = 0; m < TILES; ++m)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = first_row + m * 16 + i + e / 2 * 8, element = first_n + 2 * j + e % 2;
                if (row >= RESULTS || element >= batch) continue;
                const float value = sum[m][n][e];
                out[row * out_row + target * batch + element] = bias ? elu(value + bias[row]) : value;
            }
    }
}
#endif

#ifdef SUMMED_TAPS
constexpr int G_ROWS = 16 * TILES, X_ROWS = EIGHT * OCTETS, WARPS = SUMMED_TAPS / LANES, ACROSS = WARPS / OCTETS;
constexpr int G_PITCH = pitch_of(PLACES * EIGHT, 4), X_PITCH = pitch_of(EXT * EIGHT, 4);
constexpr int STAGE = G_ROWS * G_PITCH + X_ROWS * X_PITCH;

// Write parts[block, channel, tap, row], sums over tiles of g[row, place * batch + n] times x[channel, that of the tap]. A
// block has GROUP taps, G_ROWS rows and OCTETS times eight channels, each of its warps eight of these, every ACROSS-th place.
extern "C" __global__ void __launch_bounds__(SUMMED_TAPS) summed_taps(
    Reals g, Reals x, Table reads, Table targets, Table starts, Table offsets, Target parts, int tiles, int batch,
    int g_row, int x_row
) {
    SHARED_MEMORY;
    __shared__ int start[PLACES], offset[GROUP];
    float* stages = reinterpret_cast<float*>(shared_memory);  // two of them: cotangents, then samples
    constexpr int OF_CHANNELS = (CHANNELS + X_ROWS - 1) / X_ROWS;
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES, i = lane / 4, j = lane % 4;
    const int first_tap = blockIdx.y / OF_CHANNELS * GROUP, first_channel = blockIdx.y % OF_CHANNELS * X_ROWS;
    const int first_row = blockIdx.z * G_ROWS, octet = warp / ACROSS;
    const int of_batch = (batch + EIGHT - 1) / EIGHT, chunks = tiles * of_batch;

    for (int q = threadIdx.x; q < PLACES; q += SUMMED_TAPS) start[q] = starts[q] * EIGHT;
    for (int t = threadIdx.x; t < GROUP; t += SUMMED_TAPS) offset[t] = first_tap + t < ALL_TAPS ? offsets[first_tap + t] * EIGHT : 0;
    const auto fetch = [&](int chunk, int to) {
        float* to_g = stages + to * STAGE;
        float* to_x = to_g + G_ROWS * G_PITCH;
        const int tile = chunk / of_batch, first_n = chunk % of_batch * EIGHT;
        for (int k = threadIdx.x * PIECE; k < G_ROWS * PLACES * EIGHT && chunk < chunks; k += SUMMED_TAPS * PIECE) {
            const int n = k % EIGHT, q = k / EIGHT % PLACES, row = k / (EIGHT * PLACES), place = targets[tile * PLACES + q];
            const bool taken = place >= 0 && first_row + row < RESULTS && first_n + n < batch;
            const int at = (first_row + row) * g_row + place * batch + first_n + n;
            begin_copy<PIECE>(to_g + row * G_PITCH + q * EIGHT + n, g + (taken ? at : 0), taken);
        }
        for (int k = threadIdx.x * PIECE; k < X_ROWS * EXT * EIGHT && chunk < chunks; k += SUMMED_TAPS * PIECE) {
            const int n = k % EIGHT, e = k / EIGHT % EXT, channel = k / (EIGHT * EXT), place = reads[tile * EXT + e];
            const bool taken = place >= 0 && first_channel + channel < CHANNELS && first_n + n < batch;
            const int at = (first_channel + channel) * x_row + place * batch + first_n + n;
            begin_copy<PIECE>(to_x + channel * X_PITCH + e * EIGHT + n, x + (taken ? at : 0), taken);
        }
        end_group();
    };
    const auto round_own = [&](int to) {  // the copies of this thread, which have arrived
        float* to_g = stages + to * STAGE;
        for (int k = threadIdx.x * PIECE; k < G_ROWS * PLACES * EIGHT; k += SUMMED_TAPS * PIECE)
            round_few<PIECE>(to_g + k / (PLACES * EIGHT) * G_PITCH + k % (PLACES * EIGHT));
        for (int k = threadIdx.x * PIECE; k < X_ROWS * EXT * EIGHT; k += SUMMED_TAPS * PIECE)
            round_few<PIECE>(to_g + G_ROWS * G_PITCH + k / (EXT * EIGHT) * X_PITCH + k % (EXT * EIGHT));
    };

    float sum[GROUP][TILES][4] = {};
    int turn = 0;
    fetch(blockIdx.x, 0);
    for (int chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x, turn ^= 1) {
        fetch(chunk + gridDim.x, turn ^ 1);
        wait_for_all_but_one();
        round_own(turn);
        __syncthreads();
        const float* of_g = stages + turn * STAGE + i * G_PITCH + j;
        const float* of_x = stages + turn * STAGE + G_ROWS * G_PITCH + (octet * EIGHT + i) * X_PITCH + j;
#pragma unroll 1
        for (int q = warp % ACROSS; q < PLACES; q += ACROSS) {
            unsigned a[TILES][4];
#pragma unroll
            for (int m = 0; m < TILES; ++m)
#pragma unroll
                for (int e = 0; e < 4; ++e) a[m][e] = __float_as_uint(of_g[(m * 16 + e % 2 * 8) * G_PITCH + q * EIGHT + e / 2 * 4]);
#pragma unroll
            for (int t = 0; t < GROUP; ++t) {
                const float* from = of_x + start[q] + offset[t];
                const unsigned b[2] = {__float_as_uint(from[0]), __float_as_uint(from[4])};
#pragma unroll
                for (int m = 0; m < TILES; ++m) mma(sum[t][m], a[m], b);
            }
        }
        __syncthreads();
    }
    // the warps of eight channels add up, one tap after the other
    float* part = stages;
    constexpr int ALL = G_ROWS * EIGHT;
#pragma unroll
    for (int t = 0; t < GROUP; ++t) {
#pragma unroll
        for (int m = 0; m < TILES; ++m)
#pragma unroll
            for (int e = 0; e < 4; ++e) part[warp * ALL + (2 * j + e % 2) * G_ROWS + m * 16 + i + e / 2 * 8] = sum[t][m][e];
        __syncthreads();
        for (int k = threadIdx.x; k < OCTETS * ALL; k += SUMMED_TAPS) {
            const int row = first_row + k % G_ROWS, channel = first_channel + k / G_ROWS;
            float all = 0;
            for (int v = 0; v < ACROSS; ++v) all += part[(k / ALL * ACROSS + v) * ALL + k % ALL];
            if (row < RESULTS && channel < CHANNELS && first_tap + t < ALL_TAPS)
                parts[(((long long)blockIdx.x * CHANNELS + channel) * ALL_TAPS + first_tap + t) * RESULTS + row] = all;
        }
        __syncthreads();
    }
}
#endif

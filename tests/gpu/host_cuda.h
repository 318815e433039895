// Enough of CUDA to run a kernel on the processor, block by block: without HOST_THREADS by host_coroutines.h, with it
// by host_threads.h. Each text of kernels compiles all of this again, so it keeps to C's memory, which takes less than
// half the time of the library's containers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define __global__
#define __device__
#define __shared__ static __attribute__((section("shared_by_block")))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
using std::max;
using std::min;

extern unsigned char __start_shared_by_block[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_shared_by_block[] __attribute__((weak, visibility("hidden")));

struct Copy { float* to; float value; };
struct Copies { Copy copy[4096]; unsigned count, ends[64], groups; };  // those that are not done, and where groups end

// What a card refuses and this processor does not: set by copies, and where -fsanitize=alignment asks by all accesses.
extern "C" __attribute__((visibility("default"))) int misaligned;
int misaligned = 0;
extern "C" void __ubsan_handle_type_mismatch_v1(void*, void*) { misaligned = 1; }

namespace host {
static Copies* copies;  // of each thread
static unsigned char* shared_memory;
static std::size_t shared_bytes;

// A kernel with its arguments.
struct Body {
    void (*run)(const void*);
    const void* what;
    void operator()() const { run(what); }
};

// Fill what the threads of a block share with NaN, as what nobody wrote should be.
static void poison() {
    std::memset(shared_memory, 0xff, shared_bytes);
    if (!copies) copies = static_cast<Copies*>(std::calloc(1024, sizeof(Copies)));
    for (unsigned t = 0; t < 1024; ++t) copies[t].count = copies[t].groups = 0;
    std::memset(__start_shared_by_block, 0xff, __stop_shared_by_block - __start_shared_by_block);
}
}  // namespace host

#ifdef HOST_THREADS
#include "host_threads.h"
#else
#include "host_coroutines.h"
#endif

namespace host {
template <typename... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), const unsigned* sizes, std::size_t shared, void** values, std::index_sequence<I...>) {
    const dim3 grid{sizes[0], sizes[1], sizes[2]}, block{sizes[3]}, first{sizes[4], sizes[5], sizes[6]};
    shared_bytes = shared + 16;
    shared_memory = static_cast<unsigned char*>(std::realloc(shared_memory, shared_bytes));
    const auto body = [=] { kernel(*static_cast<Arguments*>(values[I])...); };
    run(grid, block, first, Body{+[](const void* what) { (*static_cast<decltype(body)*>(what))(); }, &body});
}

template <typename... Arguments>
void launch(void (*kernel)(Arguments...), const unsigned* sizes, std::size_t shared, void** values) {
    call(kernel, sizes, shared, values, std::index_sequence_for<Arguments...>());
}
}  // namespace host

#define SHARED_MEMORY unsigned char* shared_memory = host::shared_memory

static inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

// To ten bits after the point, the nearest, ties away from zero; infinities and NaN stay.
static inline unsigned tf32(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof x);
    return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

// What tensor cores keep of a sum: what does not fit is cut off.
static inline float cut(double sum) {
    const float nearest = static_cast<float>(sum);
    return std::abs(static_cast<double>(nearest)) > std::abs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

// Copies to shared memory that go on by themselves: NaN is there until they are waited for.
template <int COUNT> static inline void begin_copy(float* to, const float* from, bool taken) {
    Copies& own = host::copies[host::current];
    if (own.count + COUNT > 4096) std::abort();
    if (reinterpret_cast<std::uintptr_t>(from) % (4 * COUNT) || reinterpret_cast<std::uintptr_t>(to) % (4 * COUNT)) misaligned = 1;
    for (int k = 0; k < COUNT; ++k) {
        own.copy[own.count++] = {to + k, taken ? from[k] : 0.0f};
        to[k] = NAN;  // no memset, which ThreadSanitizer does not see once it is inlined
    }
}
static inline void end_group() {
    Copies& own = host::copies[host::current];
    own.ends[own.groups++] = own.count;
}
static inline void wait_for_all_but_one() {
    Copies& own = host::copies[host::current];
    if (own.groups < 2) return;
    const unsigned done = own.ends[own.groups - 2];
    for (unsigned k = 0; k < done; ++k) *own.copy[k].to = own.copy[k].value;
    std::memmove(own.copy, own.copy + done, (own.count - done) * sizeof(Copy));
    own.ends[0] = own.ends[own.groups - 1] - done, own.groups = 1, own.count -= done;
}

// The lanes of a warp show each other a number, and each takes that of a lane.
template <typename T> static inline T __shfl_sync(unsigned, T x, unsigned lane) {
    static T shown[2][32][32];
    T (&warp)[32] = shown[host::turn()][host::current / 32];
    warp[host::current % 32] = x;
    host::meet();
    const T found = warp[lane];
    host::part();
    return found;
}

// mma.sync.m16n8k8: the lanes of a warp show each other their parts, meet, and take what they need. The 13 bits that a
// number of TensorFloat-32 has not are ignored.
static inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Parts { unsigned a[4], b[2]; };
    static Parts shown[2][32][32];
    const unsigned t = host::current, lane = t % 32, i = lane / 4, j = lane % 4;
    Parts (&warp)[32] = shown[host::turn()][t / 32];
    std::copy(a, a + 4, warp[lane].a), std::copy(b, b + 2, warp[lane].b);
    host::meet();
    for (unsigned e = 0; e < 4; ++e) {
        double total = sum[e];
        for (unsigned k = 0; k < 8; ++k) {
            const double left = __uint_as_float(warp[i * 4 + k % 4].a[k / 4 * 2 + e / 2] & ~0x1fffu);
            total += left * __uint_as_float(warp[(2 * j + e % 2) * 4 + k % 4].b[k / 4] & ~0x1fffu);
        }
        sum[e] = cut(total);
    }
    host::part();
}

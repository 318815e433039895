// Enough of CUDA to run a kernel without tensor-core instructions on the processor: threads of a block are coroutines
// on one thread of the system, which __syncthreads gives way to the next; blocks follow each other.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
using std::max;
using std::min;

namespace host {
constexpr std::size_t STACK = 64 << 10;
struct Thread {
    jmp_buf place;  // where it goes on; saved and restored without a call of the system, unlike a ucontext_t
    std::unique_ptr<unsigned char[]> stack{new unsigned char[STACK]};
    unsigned barriers;
    bool finished;
};
static jmp_buf scheduler;
static std::deque<Thread> threads;  // kept from one block, and launch, to the next
static unsigned current;
static const std::function<void()>* body;
static std::vector<unsigned char> shared_memory;

static void leave(jmp_buf here, jmp_buf there) {
    if (!_setjmp(here)) _longjmp(there, 1);
}

static void enter() {
    for (;; leave(threads[current].place, scheduler)) {
        (*body)();
        threads[current].finished = true;
    }
}

static void add_thread() {
    current = threads.size();
    threads.emplace_back();
    static ucontext_t back, fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = threads.back().stack.get(), fresh.uc_stack.ss_size = STACK;
    makecontext(&fresh, +[] { if (!_setjmp(threads[current].place)) setcontext(&back); enter(); }, 0);
    swapcontext(&back, &fresh);
}

static void run(dim3 grid, dim3 block, dim3 first, std::size_t shared, const std::function<void()>& kernel) {
    gridDim = grid, blockDim = block, body = &kernel;
    shared_memory.assign(shared + 16, 0xff);  // NaN, as what nobody wrote should be
    while (threads.size() < block.x) add_thread();
    for (unsigned z = first.z; z < grid.z; ++z)
    for (unsigned y = first.y; y < grid.y; ++y)
    for (unsigned x = first.x; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        for (unsigned t = 0; t < block.x; ++t) threads[t].finished = false, threads[t].barriers = 0;
        for (bool left = true; left;) {
            left = false;
            for (current = 0; current < block.x; ++current) {
                if (threads[current].finished) continue;
                threadIdx.x = current;
                leave(scheduler, threads[current].place);
                left |= !threads[current].finished;
            }
        }
        for (unsigned t = 0; t < block.x; ++t)
            if (threads[t].barriers != threads[0].barriers) std::abort();  // a barrier that not all threads reach
    }
}

template <typename... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), const unsigned* sizes, std::size_t shared, void** values, std::index_sequence<I...>) {
    const dim3 grid{sizes[0], sizes[1], sizes[2]}, block{sizes[3]}, first{sizes[4], sizes[5], sizes[6]};
    run(grid, block, first, shared, [=] { kernel(*static_cast<Arguments*>(values[I])...); });
}

template <typename... Arguments>
void launch(void (*kernel)(Arguments...), const unsigned* sizes, std::size_t shared, void** values) {
    call(kernel, sizes, shared, values, std::index_sequence_for<Arguments...>());
}
}  // namespace host

#define SHARED_MEMORY unsigned char* shared_memory = host::shared_memory.data()

static inline void __syncthreads() {
    const unsigned t = host::current;
    ++host::threads[t].barriers;
    host::leave(host::threads[t].place, host::scheduler);
    threadIdx.x = t;
}

static inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
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

// mma.sync.m16n8k8: the lanes of a warp show each other their parts, in one of two places in turn, so that who is late
// still finds what who is early has replaced.
static inline void mma(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Parts { unsigned a[4], b[2]; };
    static Parts shown[2][32][32];
    const unsigned t = host::current, lane = t % 32, i = lane / 4, j = lane % 4;
    Parts (&warp)[32] = shown[host::threads[t].barriers % 2][t / 32];
    std::copy(a, a + 4, warp[lane].a), std::copy(b, b + 2, warp[lane].b);
    __syncthreads();
    for (unsigned e = 0; e < 4; ++e) {
        double total = sum[e];
        for (unsigned k = 0; k < 8; ++k) {
            const double left = __uint_as_float(warp[i * 4 + k % 4].a[k / 4 * 2 + e / 2]);
            total += left * __uint_as_float(warp[(2 * j + e % 2) * 4 + k % 4].b[k / 4]);
        }
        sum[e] = cut(total);
    }
}

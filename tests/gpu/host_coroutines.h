// Threads of a block as coroutines on one thread of the system, in a fixed order.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {
constexpr std::size_t STACK = 64 << 10;
constexpr unsigned MOST_THREADS = 1024;  // of a block, on any card
struct Thread {
    jmp_buf place;  // where it goes on; saved and restored without a call of the system, unlike a ucontext_t
    unsigned barriers, meetings;
    bool finished;
    void* stack;
};
static jmp_buf scheduler;
static Thread threads[MOST_THREADS];  // kept from one block to the next
static unsigned made, current;
static const Body* body;

// A place where so many threads meet: how many have come since it was last passed, and how often it was.
struct Meeting {
    unsigned count, arrived, passed;
    void expect(unsigned threads) { count = threads, arrived = passed = 0; }
    void pass_if_all_are_there() { if (arrived == count) arrived = 0, ++passed; }
};
static Meeting of_block, of_warp[32];

static void leave(jmp_buf here, jmp_buf there) {
    if (!_setjmp(here)) _longjmp(there, 1);
}

static void enter() {
    for (;; leave(threads[current].place, scheduler)) {
        (*body)();
        threads[current].finished = true;
        --of_block.count;
        if (of_block.arrived) of_block.pass_if_all_are_there();
    }
}

// Come to a place for the time-th time, and wait for the others; in their order, all go on after it.
static void wait(Meeting& meeting, unsigned time) {
    const unsigned t = current;
    ++meeting.arrived;
    meeting.pass_if_all_are_there();
    do leave(threads[t].place, scheduler); while (meeting.passed < time);
    threadIdx.x = t;
}

static void add_thread() {
    if (made == MOST_THREADS) std::abort();
    current = made++;
    static ucontext_t back, fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = threads[current].stack = std::malloc(STACK), fresh.uc_stack.ss_size = STACK;
    makecontext(&fresh, +[] { if (!_setjmp(threads[current].place)) setcontext(&back); enter(); }, 0);
    swapcontext(&back, &fresh);
}

static void run(dim3 grid, dim3 block, dim3 first, const Body& kernel) {
    gridDim = grid, blockDim = block, body = &kernel;
    while (made < block.x) add_thread();
    for (unsigned z = first.z; z < grid.z; ++z)
    for (unsigned y = first.y; y < grid.y; ++y)
    for (unsigned x = first.x; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        poison();
        of_block.expect(block.x);
        for (unsigned w = 0; w * 32 < block.x; ++w) of_warp[w].expect(min(32u, block.x - w * 32));
        for (unsigned t = 0; t < block.x; ++t)
            threads[t].finished = false, threads[t].barriers = threads[t].meetings = 0;
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
    while (made) std::free(threads[--made].stack);  // else each of the many texts that tests compile keeps its own
    std::free(copies), copies = nullptr;
}
}  // namespace host

static inline void __syncthreads() {
    host::wait(host::of_block, ++host::threads[host::current].barriers);
}

namespace host {
// What the lanes of a warp show each other lies in one of two places in turn, so that who is late still finds what who is
// early has replaced.
static inline unsigned turn() { return threads[current].meetings % 2; }
static inline void meet() { wait(of_warp[current / 32], ++threads[current].meetings); }
static inline void part() {}
}  // namespace host

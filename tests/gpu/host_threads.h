// Threads of a block as threads of the system, so that ThreadSanitizer sees which of their accesses no barrier orders.
#pragma once
#include <pthread.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

static thread_local dim3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace host {
static thread_local unsigned current;

// The first block along an axis of a grid, then the last: they follow each other, so those between show nothing new.
static unsigned after(unsigned block, unsigned count) { return block + 1 < count ? count - 1 : count; }

// A place where so many threads meet. Two barriers take turns: ThreadSanitizer lets a thread that leaves one late see what
// others have done until they came to the same one again.
struct Meeting {
    pthread_barrier_t barriers[2];
    void expect(unsigned count) { for (auto& barrier : barriers) pthread_barrier_init(&barrier, nullptr, count); }
    void wait(unsigned& turn) { pthread_barrier_wait(&barriers[turn++ % 2]); }
};
static Meeting of_block, of_warp[32];
static thread_local unsigned turn_of_block, turn_of_warp;

static void run(dim3 grid, dim3 block, dim3, const Body& kernel) {
    gridDim = grid, blockDim = block;
    of_block.expect(block.x);
    for (unsigned w = 0; w * 32 < block.x; ++w) of_warp[w].expect(min(32u, block.x - w * 32));
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < block.x; ++t)
        threads.emplace_back([=, &kernel] {
            current = threadIdx.x = t;
            for (unsigned z = 0; z < grid.z; z = after(z, grid.z))
            for (unsigned y = 0; y < grid.y; y = after(y, grid.y))
            for (unsigned x = 0; x < grid.x; x = after(x, grid.x)) {
                of_block.wait(turn_of_block);
                if (t == 0) poison();
                of_block.wait(turn_of_block);
                blockIdx = {x, y, z};
                kernel();
            }
        });
    for (std::thread& thread : threads) thread.join();
}

static inline unsigned turn() { return 0; }
static inline void meet() { of_warp[current / 32].wait(turn_of_warp); }
static inline void part() { meet(); }

// A launch as `races.py` writes it: numbers of eight bytes, and bytes after their number.
struct Launch {
    std::ifstream file;
    std::vector<std::vector<unsigned char>> buffers, values;
    std::vector<void*> pointers;
    unsigned sizes[7] = {};
    std::size_t shared;

    explicit Launch(const char* path) : file(path, std::ios::binary) {
        shared = number();
        for (unsigned i = 0; i < 4; ++i) sizes[i] = number();
        read(buffers);
        values.resize(number());
        for (auto& value : values) {
            bytes(value);
            for (std::size_t left = number(); left; --left) {  // addresses in it
                const std::size_t at = number(), buffer = number(), offset = number();
                unsigned char* const address = buffers[buffer].data() + offset;
                std::memcpy(value.data() + at, &address, sizeof address);
            }
            pointers.push_back(value.data());
        }
    }
    std::size_t number() {
        std::uint64_t found = 0;
        file.read(reinterpret_cast<char*>(&found), sizeof found);
        return found;
    }
    void bytes(std::vector<unsigned char>& to) {
        to.resize(number());
        file.read(reinterpret_cast<char*>(to.data()), to.size());
    }
    void read(std::vector<std::vector<unsigned char>>& to) {
        to.resize(number());
        for (auto& each : to) bytes(each);
    }
};
}  // namespace host

static inline void __syncthreads() { host::of_block.wait(host::turn_of_block); }

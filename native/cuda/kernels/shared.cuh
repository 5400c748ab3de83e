// Shared memory beyond what a kernel declares: of a size that the launch names (Shape::shared), filled by copies that run beside the
// work, read by whole matrices.
//
// A copy is begun by `cp_async_16`, gathered into groups by `cp_async_commit`, and there once `cp_async_wait<N>` has returned: all but
// the N youngest groups of this thread are done then. Other threads see it behind the next barrier. Over the emulation the place holds
// NaN from the beginning to the wait, so that reading too early, and overwriting what others still read, shows.
#pragma once

#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

// What Shape::shared of the launch asked for, aligned to 16 bytes. It holds anything at first.
template <typename T>
static TANDEM_DEVICE T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) uint8_t tandem_dynamic_shared[];
  return reinterpret_cast<T*>(tandem_dynamic_shared);
#else
  return static_cast<T*>(emulation::Machine::current().dynamic_shared());
#endif
}

#ifdef __CUDACC__
static TANDEM_DEVICE uint32_t shared_address(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }
#endif

// Begins to copy 16 bytes from device memory, past the first cache; both addresses are multiples of 16. Where `there` is false nothing is read and
// the place becomes 0; `global` is any address of device memory then.
static TANDEM_DEVICE void cp_async_16(void* shared, const void* global, bool there = true) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0) : "memory");
#else
  check_aligned(shared, 16);
  check_aligned(global, 16);
  emulation::Machine::current().begin_copy(shared, there ? global : nullptr, 16);
#endif
}

// The first `bytes` (1 … 16) of 16, zeros behind them: nothing past them is read.
static TANDEM_DEVICE void cp_async_part(void* shared, const void* global, int bytes) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
#else
  check_aligned(shared, 16);
  check_aligned(global, 16);
  emulation::Machine::current().begin_copy(shared, global, static_cast<size_t>(bytes));
  if (bytes < 16) emulation::Machine::current().begin_copy(static_cast<uint8_t*>(shared) + bytes, nullptr, static_cast<size_t>(16 - bytes));
#endif
}

// The copies begun since the last group are one.
static TANDEM_DEVICE void cp_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulation::Machine::current().commit_copies();
#endif
}

// Waits until no more than N of this thread's groups are under way.
template <int N>
static TANDEM_DEVICE void cp_async_wait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  emulation::Machine::current().finish_copies(N);
#endif
}

#ifndef __CUDACC__
// Matrices of 8 rows of 8 halves by the addresses of their rows: lane i names row i % 8 of matrix i / 8.
template <int Count, bool Transposed>
static inline void load_matrices(uint32_t (&d)[Count], const void* row) {
  emulation::Machine& machine = emulation::Machine::current();
  const int lane = machine.lane();
  uint32_t own[4] = {};
  if (lane < 8 * Count) {
    check_aligned(row, 16);
    memcpy(own, row, 16);
  }
  const auto rows = machine.exchange(Transposed ? "ldmatrix.trans" : "ldmatrix", own, 4);
  const int g = lane / 4, q = lane % 4;
  for (int m = 0; m < Count; m++) {
    const auto half = [&](int r, int c) { return rows[8 * m + r][c / 2] >> (16 * (c & 1)) & 0xffff; };
    d[m] = Transposed ? half(2 * q, g) | half(2 * q + 1, g) << 16 : rows[8 * m + g][q];
  }
}
#endif

// Matrices of 8 rows of 8 bf16 from shared memory, by a warp together. `row`: of lane i the 16 bytes (a multiple of 16) of row i % 8 of matrix i / 8; with two
// matrices those of lanes from 16 on are not looked at. Of each matrix lane 4g + q gets columns 2q 2q+1 of row g; transposed, rows 2q 2q+1 of column g.
static TANDEM_DEVICE void ldmatrix(uint32_t (&d)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared_address(row)) : "memory");
#else
  load_matrices<4, false>(d, row);
#endif
}
static TANDEM_DEVICE void ldmatrix(uint32_t (&d)[2], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "r"(shared_address(row)) : "memory");
#else
  load_matrices<2, false>(d, row);
#endif
}
static TANDEM_DEVICE void ldmatrix_transposed(uint32_t (&d)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(shared_address(row)) : "memory");
#else
  load_matrices<4, true>(d, row);
#endif
}
static TANDEM_DEVICE void ldmatrix_transposed(uint32_t (&d)[2], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(d[0]), "=r"(d[1]) : "r"(shared_address(row)) : "memory");
#else
  load_matrices<2, true>(d, row);
#endif
}

}  // namespace tandem::cuda

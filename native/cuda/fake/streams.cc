// Streams, events and words of the fake driver.
#include <cstdint>

#include "cuda/fake/work.h"

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

static uint32_t* word(Address address) { return reinterpret_cast<uint32_t*>(address); }

EXPORT Result cuStreamCreate(StreamHandle** out, unsigned) {
  ENTER(cuStreamCreate);
  *out = new StreamHandle;
  streams().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuStreamDestroy_v2(StreamHandle* stream) {
  ENTER(cuStreamDestroy_v2);
  stream->close();
  streams().erase(stream);
  delete stream;
  state().alive--;
  return 0;
}
EXPORT Result cuStreamQuery(StreamHandle* stream) {
  ENTER(cuStreamQuery);
  if (stream->capture) return 900;
  std::lock_guard lock(stream->mutex);
  return stream->pending == 0 ? 0 : 600;
}
EXPORT Result cuStreamWaitEvent(StreamHandle* stream, EventHandle* event, unsigned) {
  ENTER(cuStreamWaitEvent);
  if (event->capture) {
    if (stream->capture && stream->capture != event->capture) return 902;
    stream->capture = event->capture;
    std::vector<size_t>& tips = stream->capture->tips[stream];
    tips.insert(tips.end(), event->after.begin(), event->after.end());
    return 0;
  }
  if (stream->capture) return 905;
  return make(stream, [] {}, [done = event->done] { return done->load(); });
}
EXPORT Result cuStreamWriteValue32_v2(StreamHandle* stream, Address address, uint32_t value, unsigned) {
  ENTER(cuStreamWriteValue32_v2);
  return make(stream, [=] {
    if (reachable(address, 4)) __atomic_store_n(word(address), value, __ATOMIC_RELEASE);
  });
}
EXPORT Result cuStreamWaitValue32_v2(StreamHandle* stream, Address address, uint32_t value, unsigned flags) {
  ENTER(cuStreamWaitValue32_v2);
  if (flags != kWaitAtLeast) return 1;
  if (!reachable(address, 4)) return 700;
  return make(stream, [] {}, [=] { return static_cast<int32_t>(__atomic_load_n(word(address), __ATOMIC_ACQUIRE) - value) >= 0; });
}
EXPORT Result cuEventCreate(EventHandle** out, unsigned) {
  ENTER(cuEventCreate);
  *out = new EventHandle;
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuEventDestroy_v2(EventHandle* event) {
  ENTER(cuEventDestroy_v2);
  made().erase(event);
  delete event;
  state().alive--;
  return 0;
}
EXPORT Result cuEventRecord(EventHandle* event, StreamHandle* stream) {
  ENTER(cuEventRecord);
  event->capture = stream->capture;
  if (stream->capture) {
    event->after = stream->capture->tips[stream];
    return 0;
  }
  event->done = std::make_shared<std::atomic<bool>>(false);
  return make(stream, [done = event->done] { done->store(true); });
}

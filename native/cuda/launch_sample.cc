// sample, and the log-probabilities reported with it.
#include "cuda/launch.h"

namespace tandem::cuda {

Status bind_sample(const Binding& b, Launch& out) {
  FunctionHandle *sample = nullptr, *logprobs = nullptr;
  TANDEM_TRY(b.kernel("sample", sample));
  TANDEM_TRY(b.kernel("logprobs", logprobs));
  GpuPart& part = b.part;
  const ValueView logits = b.input(0), tokens = b.output(0);
  const int64_t most = part.header->limits().max_outputs;
  if (part.sampling == nullptr) TANDEM_TRY(Sampling::create(*part.device, most, logits.columns, part.sampling));
  part.want_scratch(static_cast<size_t>(most * logits.columns) * 4);
  out = [=, &part](Stream& stream, PassRows rows) {
    if (rows.outputs == 0) return Status();
    SampleArguments a = part.sampling->arguments();
    a.logits = logits.at(rows), a.logits_stride = logits.stride;
    a.adjusted = part.scratch_at(0), a.adjusted_stride = logits.columns;
    a.dead = part.header->dead(part.index);
    a.token = tokens.ints(rows);
    a.rows = tokens.live();
    TANDEM_TRY(launch_kernel(stream, sample, sample_shape(rows.outputs), a));
    TANDEM_TRY(launch_kernel(stream, logprobs, sample_shape(rows.outputs), a));
    return part.sampling->fetch(stream, a.token, rows.outputs);
  };
  return {};
}

}  // namespace tandem::cuda

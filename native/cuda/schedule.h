// What a placed Program becomes on streams: launches, copies and hand-overs in the order in which they are given to the driver,
// and the sections that the CPU computes meanwhile. Pure: knows Programs, no driver.
//
// Each GPU has two streams: one computes, one copies and hands over. What must come before what follows from the memory that
// steps touch (slots), not from their order alone; between streams it is kept by events, between GPU and CPU by the mailbox.
// What `wait` says is met where something first needs it: shared experts, and with deferral the next layer's attention, run
// while the CPU computes.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program.h"
#include "core/status.h"
#include "cuda/expert_shares.h"

namespace tandem::cuda {

struct Operation {
  enum class Kind {
    launch,     // a step's kernel
    copy_in,    // of a step: from the machine's memory to the stream's GPU
    copy_out,   // from the stream's GPU to the machine's memory
    copy_peer,  // from the stream's GPU to another
    post,       // `number` of a section: the CPU may begin
    take,       // `number` of a section: it has been computed
    wait,       // `number` of an event
    share,      // what a GPU computes of a step of the CPU (expert_shares.h), into its buffer; `step`: the CPU's
    join,       // share `number` is added to what `step`, a copy, has brought
  };
  Kind kind;
  uint32_t stream;
  uint32_t step = 0;
  uint32_t number = 0;  // of post and take a section, of wait an event, of share and join a share
  int32_t event = -1;  // recorded after it, or −1
};

// Neighbouring steps of the CPU. Sections run in order; section 0 (first in the list, perhaps empty) before anything is given to a GPU.
struct Section {
  bool posted = false;  // begins when a stream posts its number; else with the one before
  std::vector<uint32_t> steps;
};

struct StreamPlace {
  uint32_t device;  // in Schedule::devices
  bool copies;      // else computes
};

struct Schedule {
  std::vector<int> devices;          // ordinals: cuda:N, in the order in which steps name them
  std::vector<StreamPlace> streams;  // two a device
  std::vector<Operation> operations;
  std::vector<Section> sections;
  uint32_t events = 0;
  std::vector<int32_t> slot_device;  // of each buffer: index in `devices`, or −1: the machine's memory
};

// The ordinal of "cuda:N", −1 of "cpu", −2 of anything else.
int device_ordinal(std::string_view device);

// PROGRAM_INVALID naming the step that breaks a rule between devices (src/program/validate-devices.ts).
Status make_schedule(const Program& program, Schedule& out, const std::vector<ExpertShare>& shares = {});

}  // namespace tandem::cuda

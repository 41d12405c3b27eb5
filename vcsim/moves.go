package main

import (
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Moves in progress: how long they take, how they are cancelled, how they fail,
// and the events that vCenter posts about them.

// move is the move of one VM, from the check of its destination to its end.
type move struct {
	task      ref
	cancelled chan struct{}
	once      sync.Once
}

// moves are all moves of a vCenter, by VM, and what is in store for the next.
type moves struct {
	mu       sync.Mutex
	running  map[ref]*move
	delay    time.Duration // before the switch-over
	failures int           // how many moves fail at it
}

func (m *moves) setDelay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

func (m *moves) setFailures(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = n
}

// startMove notes a move, or returns the task of the one that the VM is in already.
func (v *vcenter) startMove(vm, task ref) (*move, ref) {
	m := &v.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	if other := m.running[vm]; other != nil {
		return nil, other.task
	}
	if m.running == nil {
		m.running = map[ref]*move{}
	}
	mv := &move{task: task, cancelled: make(chan struct{})}
	m.running[vm] = mv
	return mv, ref{}
}

func (v *vcenter) endMove(vm ref) {
	v.moves.mu.Lock()
	defer v.moves.mu.Unlock()
	delete(v.moves.running, vm)
}

// cancel ends the move that a task makes; false if the task makes none.
func (m *moves) cancel(task ref) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, mv := range m.running {
		if mv.task == task {
			mv.once.Do(func() { close(mv.cancelled) })
			return true
		}
	}
	return false
}

// untilSwitchOver returns when a move is about to switch over, or why it does not.
func (v *vcenter) untilSwitchOver(mv *move) types.BaseMethodFault {
	m := &v.moves
	m.mu.Lock()
	delay := m.delay
	m.mu.Unlock()
	select {
	case <-mv.cancelled:
		return &types.RequestCanceled{}
	case <-time.After(delay):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failures > 0 {
		m.failures--
		return &types.MigrationFault{}
	}
	return nil
}

// taskMethods overrides methods of tasks.
type taskMethods struct {
	*simulator.Task
	v *vcenter
}

// CancelTask stops a move before its switch-over. Stock ends the task at once
// and lets the work go on.
func (t *taskMethods) CancelTask(ctx *simulator.Context, req *types.CancelTask) soap.HasFault {
	if !t.v.moves.cancel(t.Self) {
		return t.Task.CancelTask(ctx, req)
	}
	ctx.Update(t.Task, []types.PropertyChange{{Name: "info.cancelled", Val: true}})
	return &methods.CancelTaskBody{Res: &types.CancelTaskResponse{}}
}

// moveHistory makes the events of one move. With a datastore in its
// specification vCenter calls it a relocation, else a migration.
type moveHistory struct {
	m                   *vmMethods
	source, destination ref
	relocates           bool
	byDRS               bool
}

func (m *vmMethods) moveHistory(source ref, spec *types.VirtualMachineRelocateSpec) *moveHistory {
	h := &moveHistory{m: m, source: source, destination: source, relocates: spec.Datastore != nil}
	if spec.Host != nil {
		h.destination = *spec.Host
	}
	return h
}

func (h *moveHistory) begin() []types.BaseEvent {
	event := h.m.v.vmEvent(h.m.VirtualMachine, h.source)
	host, _ := h.m.v.hostArgument(h.destination)
	dc := h.m.v.datacenterArgument(h.m.VirtualMachine)
	switch {
	case h.relocates:
		return []types.BaseEvent{&types.VmBeingRelocatedEvent{
			VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: event}, DestHost: host, DestDatacenter: dc, DestDatastore: event.Ds,
		}}
	case poweredOn(&h.m.VirtualMachine.VirtualMachine):
		return []types.BaseEvent{
			&types.VmBeingHotMigratedEvent{VmEvent: event, DestHost: host, DestDatacenter: dc, DestDatastore: event.Ds},
			&types.VmEmigratingEvent{VmEvent: event},
		}
	}
	return []types.BaseEvent{
		&types.VmBeingMigratedEvent{VmEvent: event, DestHost: host, DestDatacenter: dc, DestDatastore: event.Ds},
		&types.VmEmigratingEvent{VmEvent: event},
	}
}

func (h *moveHistory) end() types.BaseEvent {
	event := h.m.v.vmEvent(h.m.VirtualMachine, h.destination)
	host, _ := h.m.v.hostArgument(h.source)
	dc := h.m.v.datacenterArgument(h.m.VirtualMachine)
	if h.relocates {
		return &types.VmRelocatedEvent{
			VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: event}, SourceHost: host, SourceDatacenter: dc, SourceDatastore: event.Ds,
		}
	}
	migrated := types.VmMigratedEvent{VmEvent: event, SourceHost: host, SourceDatacenter: dc, SourceDatastore: event.Ds}
	if h.byDRS {
		return &types.DrsVmMigratedEvent{VmMigratedEvent: migrated}
	}
	return &migrated
}

func (h *moveHistory) fail(fault types.BaseMethodFault) types.BaseEvent {
	event := h.m.v.vmEvent(h.m.VirtualMachine, h.source)
	host, _ := h.m.v.hostArgument(h.destination)
	dc := h.m.v.datacenterArgument(h.m.VirtualMachine)
	reason := types.LocalizedMethodFault{Fault: fault}
	if h.relocates {
		return &types.VmRelocateFailedEvent{
			VmRelocateSpecEvent: types.VmRelocateSpecEvent{VmEvent: event}, DestHost: host, Reason: reason, DestDatacenter: dc, DestDatastore: event.Ds,
		}
	}
	return &types.VmFailedMigrateEvent{VmEvent: event, DestHost: host, Reason: reason, DestDatacenter: dc, DestDatastore: event.Ds}
}

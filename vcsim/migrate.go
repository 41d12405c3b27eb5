package main

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// vMotion. Stock has no MigrateVM_Task, and its RelocateVM_Task updates no host.

// RelocateVMTask moves a VM to another host, pool or datastore.
func (m *vmMethods) RelocateVMTask(ctx *simulator.Context, req *types.RelocateVM_Task) soap.HasFault {
	task := m.runUnlocked(ctx, "relocateVm", func(ctx *simulator.Context, mv *move) (types.AnyType, types.BaseMethodFault) {
		return nil, m.migrate(ctx, &req.Spec, mv, false)
	})
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: task}}
}

// MigrateVMTask moves a VM to another host or pool.
func (m *vmMethods) MigrateVMTask(ctx *simulator.Context, req *types.MigrateVM_Task) soap.HasFault {
	task := m.runUnlocked(ctx, "migrateVm", func(ctx *simulator.Context, mv *move) (types.AnyType, types.BaseMethodFault) {
		if req.State != "" && req.State != m.Runtime.PowerState {
			return nil, &types.InvalidPowerState{RequestedState: req.State, ExistingState: m.Runtime.PowerState}
		}
		return nil, m.migrate(ctx, &types.VirtualMachineRelocateSpec{Host: req.Host, Pool: req.Pool}, mv, false)
	})
	return &methods.MigrateVM_TaskBody{Res: &types.MigrateVM_TaskResponse{Returnval: task}}
}

// runUnlocked starts a move, which may take long. Stock holds a task's entity
// locked until the task ends, which blocks every reader of a VM on the move:
// this task runs under a name that nobody else locks, and shows the VM as its
// entity. A VM makes one move at a time.
func (m *vmMethods) runUnlocked(
	ctx *simulator.Context, name string, run func(*simulator.Context, *move) (types.AnyType, types.BaseMethodFault),
) ref {
	inner := freshContext(ctx)
	stand := ref{Type: "VirtualMachine", Value: m.Self.Value + "#" + uuid.NewString()}
	t := simulator.CreateTask(stand, name, func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		mv, other := m.v.startMove(m.Self, t.Self)
		if mv == nil {
			return nil, &types.TaskInProgress{Task: other}
		}
		defer m.v.endMove(m.Self)
		return run(inner, mv)
	})
	r := t.Run(ctx)
	self, vmName := m.Self, m.Name
	ctx.Map.AtomicUpdate(freshContext(ctx), t, []types.PropertyChange{
		{Name: "info.entity", Val: &self}, {Name: "info.entityName", Val: vmName}, {Name: "info.cancelable", Val: true},
	})
	return r
}

// moveByDRS is POST /drs-move: the cluster itself moves a VM, as nobody asked for.
func (s *server) moveByDRS(w http.ResponseWriter, r *http.Request) {
	var body struct {
		VM   string `json:"vm"`
		Host string `json:"host"`
	}
	if !decode(w, r, &body) {
		return
	}
	e := s.esxi[body.Host]
	if e == nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("host %q: allowed are %v", body.Host, s.names[1:]))
		return
	}
	for _, o := range s.v.registry.All("VirtualMachine") {
		vm := o.(*simulator.VirtualMachine)
		if vm.Name != body.VM {
			continue
		}
		m := &vmMethods{vm, s.v}
		destination := e.host
		task := m.runUnlocked(s.v.newContext(), "migrateVm", func(ctx *simulator.Context, mv *move) (types.AnyType, types.BaseMethodFault) {
			return nil, m.migrate(ctx, &types.VirtualMachineRelocateSpec{Host: &destination}, mv, true)
		})
		reply(w, map[string]string{"task": task.Value})
		return
	}
	refuse(w, http.StatusBadRequest, fmt.Sprintf("vm %q: allowed is the name of a VM", body.VM))
}

// migrate runs without the VM's lock, which it takes for the switch-over only.
func (m *vmMethods) migrate(ctx *simulator.Context, spec *types.VirtualMachineRelocateSpec, mv *move, byDRS bool) types.BaseMethodFault {
	v, source := m.v, *m.Runtime.Host
	moves := spec.Host != nil && *spec.Host != source
	history := m.moveHistory(source, spec)
	history.byDRS = byDRS
	if moves {
		if f := m.checkPool(*spec.Host, spec.Pool); f != nil {
			return f
		}
		if f := m.checkDestination(*spec.Host); f != nil {
			return f
		}
	}
	if moves || spec.Datastore != nil {
		v.postLater(history.begin()...)
		if f := v.untilSwitchOver(mv); f != nil {
			v.postLater(history.fail(f))
			return f
		}
	}
	unlock := ctx.Map.AcquireLock(ctx, m.VirtualMachine)
	defer unlock()
	if len(spec.DeviceChange) != 0 {
		// The lock is shared with the stock task through ctx.
		res := m.ReconfigVMTask(ctx, &types.ReconfigVM_Task{
			This: m.Self, Spec: types.VirtualMachineConfigSpec{DeviceChange: spec.DeviceChange},
		})
		if _, f := waitTask(ctx, res.(*methods.ReconfigVM_TaskBody).Res.Returnval); f != nil {
			return f
		}
	}
	var changes []types.PropertyChange
	if spec.Datastore != nil {
		changes = append(changes, types.PropertyChange{Name: "datastore", Val: []ref{*spec.Datastore}})
	}
	if spec.Pool != nil {
		changes = append(changes, types.PropertyChange{Name: "resourcePool", Val: spec.Pool})
	}
	if moves {
		destination := *spec.Host
		changes = append(changes,
			types.PropertyChange{Name: "runtime.host", Val: &destination},
			types.PropertyChange{Name: "summary.runtime.host", Val: &destination})
	}
	if len(changes) != 0 {
		ctx.Update(m.VirtualMachine, changes) // proxyHost of the ports follows in UpdateObject
	}
	if moves {
		v.placeNow(ctx, m.Self) // the lists are right when the task ends
	}
	if moves || spec.Datastore != nil {
		v.postLater(history.end())
	}
	return nil
}

// checkPool tells why a VM can't be in a pool on a host: the pool (the VM's own,
// if none is given) has to be one of the host's cluster.
func (m *vmMethods) checkPool(destination ref, pool *ref) types.BaseMethodFault {
	if pool == nil {
		pool = m.ResourcePool
	}
	host := lookup[*simulator.HostSystem](m.v.registry, destination)
	p := lookup[*simulator.ResourcePool](m.v.registry, *pool)
	if host != nil && p != nil && p.Owner != *host.Parent {
		return &types.InvalidArgument{InvalidProperty: "pool"}
	}
	return nil
}

// checkDestination tells why the VM can't run on a host.
func (m *vmMethods) checkDestination(destination ref) types.BaseMethodFault {
	_, host := m.v.hostArgument(destination)
	switch {
	case host == nil:
		return &types.ManagedObjectNotFound{Obj: destination}
	case host.Runtime.ConnectionState != types.HostSystemConnectionStateConnected:
		return &types.InvalidHostState{Host: &destination}
	case host.Runtime.InMaintenanceMode:
		return &types.InvalidState{}
	}
	for _, nic := range dvNics(m.Config.Hardware.Device) {
		for _, e := range m.v.registry.All("DistributedVirtualSwitch") {
			s := e.(*simulator.DistributedVirtualSwitch)
			if s.Uuid == nic.port.SwitchUuid && !slices.Contains(s.Summary.HostMember, destination) {
				return &types.CannotAccessNetwork{CannotAccessVmDevice: types.CannotAccessVmDevice{
					Device: "Network adapter", Backing: s.Name,
				}}
			}
		}
	}
	return nil
}

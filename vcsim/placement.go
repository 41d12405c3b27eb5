package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// placeVM queues an update of HostSystem.vm of all hosts after a change of a VM's
// host, or after its coming or going. Stock stores the list on create, and
// pushes it never.
func (v *vcenter) placeVM(vm ref) {
	v.worker.later(func(ctx *simulator.Context) { v.placeNow(ctx, vm) })
}

// placeNow makes the lists of all hosts right for one VM. The VM's lock keeps
// two moves of it in order.
func (v *vcenter) placeNow(ctx *simulator.Context, vm ref) {
	o := lookup[*simulator.VirtualMachine](v.registry, vm)
	if o == nil {
		v.moveEntry(ctx, vm, nil)
		return
	}
	ctx.WithLock(o, func() {
		if isNew := v.moveEntry(ctx, vm, o.Runtime.Host); isNew {
			v.announceVM(ctx, o)
		}
	})
}

// moveEntry moves a VM's entry to the list of a host (to none for nil) and
// tells whether the VM was in none before.
func (v *vcenter) moveEntry(ctx *simulator.Context, vm ref, at *ref) bool {
	v.mu.Lock()
	before, known := v.placed[vm]
	if at == nil {
		delete(v.placed, vm)
	} else {
		v.placed[vm] = *at
	}
	v.mu.Unlock()
	if known && (at == nil || before != *at) {
		v.listVM(ctx, before, vm, false)
	}
	if at != nil && (!known || before != *at) {
		v.listVM(ctx, *at, vm, true)
	}
	return at != nil && !known
}

// announceVM sends one update of what matters, with the values that are there:
// stock fills in most fields of a new VM (created, cloned, registered,
// imported) after it announced the object, without updates.
func (v *vcenter) announceVM(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	ctx.Update(vm, []types.PropertyChange{
		{Name: "name", Val: vm.Name},
		{Name: "config", Val: vm.Config},
		{Name: "runtime.host", Val: vm.Runtime.Host},
	})
}

// listVM adds a VM to or removes it from HostSystem.vm of one host.
func (v *vcenter) listVM(ctx *simulator.Context, hostRef, vm ref, present bool) {
	host := lookup[*simulator.HostSystem](v.registry, hostRef)
	if host == nil {
		return
	}
	ctx.WithLock(host, func() {
		ctx.Update(host, []types.PropertyChange{{Name: "vm", Val: withRef(host.Vm, vm, present)}})
	})
}

// withRef is list with r in it once, or without it.
func withRef(list []ref, r ref, present bool) []ref {
	out := slices.DeleteFunc(slices.Clone(list), func(have ref) bool { return have == r })
	if present {
		out = append(out, r)
	}
	return out
}

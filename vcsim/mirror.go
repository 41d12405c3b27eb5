package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// The ESXi endpoints follow vCenter's inventory.

// mirrorVM queues a refresh of the VM's copy.
func (v *vcenter) mirrorVM(vm ref) {
	if len(v.hosts) == 0 || !v.mirrors.enter(vm) {
		return
	}
	v.worker.later(func(ctx *simulator.Context) {
		v.mirrors.leave(vm) // a change from here on is a new one
		v.mirrorNow(ctx, vm)
	})
}

func (v *vcenter) mirrorNow(ctx *simulator.Context, vm ref) {
	o := lookup[*simulator.VirtualMachine](v.registry, vm)
	if o == nil {
		return
	}
	snapshot := ctx.Checkpoint(o).(*mo.VirtualMachine)
	if snapshot.Runtime.Host == nil {
		return
	}
	snapshot.Self = vm
	at := *snapshot.Runtime.Host
	for host, e := range v.hosts {
		if host != at {
			e.hide(vm)
		}
	}
	if e := v.hosts[at]; e != nil {
		e.show(snapshot)
	}
}

// unmirrorVM queues the removal of a VM's copy.
func (v *vcenter) unmirrorVM(vm ref) {
	if len(v.hosts) == 0 {
		return
	}
	v.worker.later(func(*simulator.Context) {
		for _, e := range v.hosts {
			e.hide(vm)
		}
	})
}

// watchEvents makes vCenter's events visible to UpdateObject, as updates of a
// history collector's latestPage. Its hosts are known by then.
func (v *vcenter) watchEvents() {
	ctx := v.newContext()
	em := v.registry.EventManager()
	ctx.WithLock(em, func() {
		em.CreateCollectorForEvents(ctx, &types.CreateCollectorForEvents{This: em.Self})
	})
}

// mirrorEvents passes an event about a VM to the endpoint of the event's host.
func (v *vcenter) mirrorEvents(changes []types.PropertyChange) {
	for _, c := range changes {
		page, ok := c.Val.(*types.ArrayOfEvent)
		if c.Name != "latestPage" || !ok || len(page.Event) == 0 {
			continue
		}
		event := page.Event[0] // the newest
		b := event.GetEvent()
		v.mu.Lock()
		isNew := b.Key > v.lastEvent
		if isNew {
			v.lastEvent = b.Key
		}
		v.mu.Unlock()
		if !isNew || b.Vm == nil || b.Host == nil {
			continue
		}
		if e := v.hosts[b.Host.Host]; e != nil {
			e.event(event) // another registry with locks of its own
		}
	}
}

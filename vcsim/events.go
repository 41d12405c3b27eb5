package main

import (
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Events, and the descriptions of objects that they carry.

// postLater queues events.
func (v *vcenter) postLater(events ...types.BaseEvent) {
	v.worker.later(func(ctx *simulator.Context) { postEvents(ctx, events...) })
}

func postEvents(ctx *simulator.Context, events ...types.BaseEvent) {
	if len(events) == 0 {
		return
	}
	m := ctx.Map.EventManager()
	ctx.WithLock(m, func() {
		for _, e := range events {
			m.PostEvent(ctx, &types.PostEvent{EventToPost: e})
		}
	})
}

func copyEvent(e types.BaseEvent) types.BaseEvent {
	dst := reflect.New(reflect.TypeOf(e).Elem()).Interface()
	copyXML(e, dst)
	return dst.(types.BaseEvent)
}

// datacenterArgument describes the datacenter that e is in.
func (v *vcenter) datacenterArgument(e mo.Entity) *types.DatacenterEventArgument {
	for parent := e.Entity().Parent; parent != nil; {
		o, ok := v.registry.Get(*parent).(mo.Entity)
		if !ok {
			return nil
		}
		if dc, ok := o.(*simulator.Datacenter); ok {
			return &types.DatacenterEventArgument{
				EntityEventArgument: types.EntityEventArgument{Name: dc.Name}, Datacenter: dc.Self,
			}
		}
		parent = o.Entity().Parent
	}
	return nil
}

func (v *vcenter) switchEvent(s *dvswitch) types.DvsEvent {
	e := types.DvsEvent{}
	e.Dvs = &types.DvsEventArgument{EntityEventArgument: types.EntityEventArgument{Name: s.name}, Dvs: s.self}
	if d := lookup[*simulator.DistributedVirtualSwitch](v.registry, s.self); d != nil {
		e.Datacenter = v.datacenterArgument(d)
	}
	return e
}

// hostArgument describes a host; the second result is nil for an unknown one.
func (v *vcenter) hostArgument(r ref) (types.HostEventArgument, *simulator.HostSystem) {
	host := lookup[*simulator.HostSystem](v.registry, r)
	if host == nil {
		return types.HostEventArgument{}, nil
	}
	return types.HostEventArgument{Host: r, EntityEventArgument: types.EntityEventArgument{Name: host.Name}}, host
}

// vmEvent describes a VM as seen on a host.
func (v *vcenter) vmEvent(vm *simulator.VirtualMachine, hostRef ref) types.VmEvent {
	argument, host := v.hostArgument(hostRef)
	e := types.VmEvent{Event: types.Event{
		Datacenter: v.datacenterArgument(vm), Host: &argument,
		Vm: &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: vm.Name}, Vm: vm.Self},
	}}
	if host != nil {
		if cr, ok := v.registry.Get(*host.Parent).(mo.Entity); ok {
			e.ComputeResource = &types.ComputeResourceEventArgument{
				EntityEventArgument: types.EntityEventArgument{Name: cr.Entity().Name}, ComputeResource: cr.Reference(),
			}
		}
	}
	if len(vm.Datastore) != 0 {
		if ds, ok := v.registry.Get(vm.Datastore[0]).(mo.Entity); ok {
			e.Ds = &types.DatastoreEventArgument{
				EntityEventArgument: types.EntityEventArgument{Name: ds.Entity().Name}, Datastore: ds.Reference(),
			}
		}
	}
	return e
}

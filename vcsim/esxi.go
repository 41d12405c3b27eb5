package main

import (
	"crypto/tls"
	"net/url"
	"strconv"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// esxi is the host agent endpoint of one host: a simulator service of its own
// (registry, sessions, certificate, login) that shows copies of the VMs which
// vCenter has on that host. A copy has a moid of its own and the same uuids.
type esxi struct {
	v        *vcenter
	name     string
	host     ref // in vCenter
	service  *simulator.Service
	server   *simulator.Server
	registry *simulator.Registry

	self, pool, folder ref // here

	mu     sync.Mutex
	copies map[ref]ref // moids here by those in vCenter
	lastID int
}

// esxTemplates guards the esx package's templates, which are globals.
var esxTemplates sync.Mutex

func newESXi(v *vcenter, host *simulator.HostSystem, listen string, login *url.Userinfo, cert *tls.Certificate) *esxi {
	esxTemplates.Lock()
	defer esxTemplates.Unlock()
	content := esx.ServiceContent
	content.About.ApiVersion = v.about().ApiVersion
	content.About.FullName = "VMware ESXi (simulated) " + host.Name
	ctx, si := simulator.NewServiceInstance(simulator.NewContext(), content, esx.RootFolder)
	e := &esxi{
		v: v, name: host.Name, host: host.Self,
		service: simulator.New(ctx, si), registry: ctx.Map, copies: map[ref]ref{},
	}
	installCollector(e.registry, v.gate)
	repairEventTemplates(e.registry)
	liftCollectorLimit(e.registry)
	e.registry.Handler = e.dispatch
	own := e.registry.Any("HostSystem").(*simulator.HostSystem)
	own.Name = host.Name
	own.Summary.Config.Name = host.Name
	own.Summary.Hardware.Uuid = host.Summary.Hardware.Uuid
	own.Hardware.SystemInfo.Uuid = host.Hardware.SystemInfo.Uuid
	e.self = own.Self
	e.pool = e.registry.Any("ResourcePool").Reference()
	e.folder = e.registry.Any("Datacenter").(*simulator.Datacenter).VmFolder
	e.service.Listen = &url.URL{Host: listen, User: login}
	e.service.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	e.server = e.service.NewServer()
	e.server.Config.Handler = v.wrap(e.name, e.server.Config.Handler)
	return e
}

// dispatch refuses changes: the hosts are managed by vCenter.
func (e *esxi) dispatch(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if f := e.v.rules.soapFault(ctx, e.name, method); f != nil {
		return nil, f
	}
	if o, ok := e.registry.Get(method.This).(*simulator.AuthorizationManager); ok {
		wrapper := &authorizationMethods{o, e.service}
		if !answers(wrapper, method) {
			return nil, nil
		}
		method.This.Value += extended
		return wrapper, nil
	}
	if method.Name == "Login" && e.v.isLocked(e.host) {
		return nil, &types.NoPermission{PrivilegeId: "System.Read"}
	}
	switch method.This.Type {
	case "VirtualMachine", "Folder", "ResourcePool":
		return nil, &types.HostAccessRestrictedToManagementServer{ManagementServer: vcenterName}
	}
	return nil, nil
}

// moid returns the reference that a VM of vCenter has here; it stays the same
// while the VM is here.
func (e *esxi) moid(vm ref) ref {
	e.mu.Lock()
	defer e.mu.Unlock()
	id, ok := e.copies[vm]
	if !ok {
		e.lastID++
		id = ref{Type: "VirtualMachine", Value: strconv.Itoa(e.lastID)}
		e.copies[vm] = id
	}
	return id
}

// show creates or refreshes the copy of a VM; vm is the caller's to give away.
func (e *esxi) show(vm *mo.VirtualMachine) {
	id := e.moid(vm.Self)
	vm.Self, vm.Summary.Vm = id, &id
	vm.Parent, vm.ResourcePool = &e.folder, &e.pool
	vm.Runtime.Host, vm.Summary.Runtime.Host = &e.self, &e.self
	vm.Network, vm.Datastore, vm.Snapshot = nil, nil, nil
	if vm.Config != nil {
		for _, d := range vm.Config.Hardware.Device {
			if b, ok := d.GetVirtualDevice().Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
				b.Network = nil // a reference into vCenter's inventory
			}
		}
	}
	ctx := freshContext(e.service.Context)
	if known := lookup[*simulator.VirtualMachine](e.registry, id); known != nil {
		ctx.AutoUpdate(known, func() { known.VirtualMachine = *vm })
		return
	}
	e.listInTree(ctx, id, true) // before Put: container views look a new object up in the tree
	e.registry.PutEntity(lookup[*simulator.Folder](e.registry, e.folder), &simulator.VirtualMachine{VirtualMachine: *vm})
	e.listAtHost(ctx, id, true) // after Put: filters read a new object when the list names it
}

// hide removes the copy of a VM that is elsewhere or gone.
func (e *esxi) hide(vm ref) {
	e.mu.Lock()
	id, ok := e.copies[vm]
	delete(e.copies, vm)
	e.mu.Unlock()
	if !ok || e.registry.Get(id) == nil {
		return
	}
	ctx := freshContext(e.service.Context)
	e.listAtHost(ctx, id, false)
	e.listInTree(ctx, id, false)
	e.registry.Remove(ctx, id)
}

// listInTree keeps the lists of folder and pool that name the VMs of this host.
func (e *esxi) listInTree(ctx *simulator.Context, id ref, present bool) {
	folder := lookup[*simulator.Folder](e.registry, e.folder)
	pool := lookup[*simulator.ResourcePool](e.registry, e.pool)
	setListed(ctx, folder, "childEntity", &folder.ChildEntity, id, present)
	setListed(ctx, pool, "vm", &pool.Vm, id, present)
}

// listAtHost keeps HostSystem.vm.
func (e *esxi) listAtHost(ctx *simulator.Context, id ref, present bool) {
	host := lookup[*simulator.HostSystem](e.registry, e.self)
	setListed(ctx, host, "vm", &host.Vm, id, present)
}

func setListed(ctx *simulator.Context, owner mo.Reference, field string, refs *[]ref, id ref, present bool) {
	ctx.WithLock(owner, func() {
		ctx.Update(owner, []types.PropertyChange{{Name: field, Val: withRef(*refs, id, present)}})
	})
}

// event posts a copy of a vCenter event, told in terms of this host.
func (e *esxi) event(original types.BaseEvent) {
	event := copyEvent(original)
	b := event.GetEvent()
	b.Vm.Vm = e.moid(b.Vm.Vm)
	b.Host.Host = e.self
	dc := e.registry.Any("Datacenter").(*simulator.Datacenter)
	cr := e.registry.Any("ComputeResource")
	b.Datacenter = &types.DatacenterEventArgument{
		EntityEventArgument: types.EntityEventArgument{Name: dc.Name}, Datacenter: dc.Self,
	}
	b.ComputeResource = &types.ComputeResourceEventArgument{
		EntityEventArgument: types.EntityEventArgument{Name: cr.Entity().Name}, ComputeResource: cr.Reference(),
	}
	postEvents(freshContext(e.service.Context), event)
}

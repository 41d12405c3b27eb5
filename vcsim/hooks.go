package main

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type ref = types.ManagedObjectReference

// vcenter extends one vCenter of the stock simulator. It hooks into govmomi's
// simulator package at four public seams, each with a test in hooks_test.go:
//
//	Registry.Handler     dispatch of SOAP methods: overrides, missing methods, injected faults
//	Registry.AddHandler  callbacks on every change of an object: state that follows from it
//	Registry.Put         replacement of the PropertyCollector
//	Task.Execute         what a stock task does can be wrapped before it runs
type vcenter struct {
	*world
	service  *simulator.Service
	registry *simulator.Registry
	worker   *worker
	tasks    taskWrappers

	// mu guards the port model and what is derived from it. It is a leaf lock:
	// no simulator lock is taken while it is held.
	mu       sync.Mutex
	switches map[ref]*dvswitch
	macs     map[string]nicID
	lastMAC  int
	parked   map[string]*types.VirtualMachineConfigInfo // unregistered VMs, by path of the .vmx
	complete map[ref]bool                               // VMs that stock has finished making
	placed   map[ref]ref                                // the host whose vm list was pushed, by VM
	nics     nicTable

	hosts     map[ref]*esxi  // by the host in this vCenter; complete before the first client
	mirrors   dueSet[ref]    // VMs whose copies are due
	lists     dueSet[string] // portgroups whose lists are due
	lastEvent int32

	moves moves

	lockedHosts sync.Map // hosts in lockdown mode: ref to bool
	lostHosts   sync.Map // hosts that vCenter does not reach: ref to bool

	keepsPorts atomic.Bool // ports keep their overrides at disconnect, whatever the policy says
}

// world is what the endpoints of one simulated site share.
type world struct {
	rules   ruleSet
	calls   callCounter
	latency latency
	gate    *gate
	freezer freezer
}

func newWorld() *world { return &world{gate: newGate()} }

// vcenterName names the vCenter in call counts, rules and sessions; ESXi
// endpoints go by the name of their host.
const vcenterName = "vcenter"

// nicID names one virtual NIC.
type nicID struct {
	vm  ref
	key int32
}

func newVcenter(w *world, service *simulator.Service) *vcenter {
	v := &vcenter{
		world:    w,
		service:  service,
		registry: service.Context.Map,
		switches: map[ref]*dvswitch{},
		macs:     map[string]nicID{},
		parked:   map[string]*types.VirtualMachineConfigInfo{},
		complete: map[ref]bool{},
		placed:   map[ref]ref{},
		nics:     newNicTable(),
		hosts:    map[ref]*esxi{},
	}
	v.worker = newWorker(v.newContext)
	installCollector(v.registry, w.gate)
	repairEventTemplates(v.registry)
	liftCollectorLimit(v.registry)
	v.registry.AddHandler(v)
	v.registry.Handler = v.dispatch
	return v
}

// newContext returns a fresh Context. A Context is the identity of a lock
// holder, so each goroutine needs its own.
func (v *vcenter) newContext() *simulator.Context { return freshContext(v.service.Context) }

func freshContext(c *simulator.Context) *simulator.Context {
	n := *c
	n.Context = context.Background()
	return &n
}

// extended marks the reference of a call that one of our wrappers answers.
const extended = "#extended"

// dispatch is the Registry.Handler hook. Service.call uses an object returned
// here only if the session has none for method.This, so the reference is
// changed to one that nobody has registered. The wrapper embeds the stock
// object: locking (by its Self) and property access are unaffected.
func (v *vcenter) dispatch(ctx *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	if f := v.rules.soapFault(ctx, vcenterName, method); f != nil {
		return nil, f
	}
	var wrapper mo.Reference
	switch o := v.registry.Get(method.This).(type) {
	case *simulator.DistributedVirtualSwitch:
		wrapper = &switchMethods{o, v}
	case *simulator.DistributedVirtualPortgroup:
		wrapper = &portgroupMethods{o, v}
	case *simulator.VirtualMachine:
		wrapper = &vmMethods{o, v}
	case *simulator.Folder:
		wrapper = &folderMethods{o, v}
	case *simulator.DistributedVirtualSwitchManager:
		wrapper = &switchManagerMethods{o, v}
	case *simulator.VmProvisioningChecker:
		wrapper = &checkerMethods{o, v}
	case *simulator.AuthorizationManager:
		wrapper = &authorizationMethods{o, v.service}
	case *simulator.Task:
		wrapper = &taskMethods{o, v}
	case *simulator.HostSystem:
		wrapper = &hostMethods{o, v}
	default:
		return nil, nil
	}
	if !answers(wrapper, method) {
		return nil, nil // the stock "does not implement" fault shows the right reference
	}
	method.This.Value += extended
	return wrapper, nil
}

// answers tells whether a wrapper has the method of a call.
func answers(wrapper mo.Reference, method *simulator.Method) bool {
	return reflect.ValueOf(wrapper).MethodByName(goMethod(method.Name)).IsValid()
}

// goMethod is the Go method that the simulator calls for a SOAP method.
func goMethod(name string) string {
	name = strings.ToUpper(name[:1]) + name[1:]
	if s, ok := strings.CutSuffix(name, "_Task"); ok {
		return s + "Task"
	}
	return name
}

// Reference makes vcenter a simulator.RegisterObject.
func (v *vcenter) Reference() ref { return ref{Type: "VcsimExtension", Value: "vcenter"} }

// PutObject is called for every object that is added to the inventory.
func (v *vcenter) PutObject(_ *simulator.Context, o mo.Reference) {
	switch o := o.(type) {
	case *simulator.VirtualMachine:
		fillRequiredEnums(&o.VirtualMachine)
	case *simulator.Task:
		v.tasks.apply(o)
		v.rules.wrapTask(vcenterName, o)
		o.Info.Name = taskMethodName(o.Info.Name)
	}
}

// UpdateObject is called for every property change, with the object's lock held.
func (v *vcenter) UpdateObject(_ *simulator.Context, o mo.Reference, changes []types.PropertyChange) {
	switch o := o.(type) {
	case *mo.VirtualMachine:
		if touchesNics(changes) {
			v.connectNics(o)
			v.forgetGuestNet(o.Self)
		}
		if v.isComplete(o.Self, changes) {
			v.placeVM(o.Self)
			v.mirrorVM(o.Self)
		}
	case *mo.EventHistoryCollector:
		v.mirrorEvents(changes)
	}
}

// RemoveObject is called before an object leaves the inventory.
func (v *vcenter) RemoveObject(_ *simulator.Context, r ref) {
	switch r.Type {
	case "VirtualMachine":
		v.mu.Lock()
		delete(v.complete, r)
		v.mu.Unlock()
		v.disconnectVM(r)
		v.placeVM(r)
		v.unmirrorVM(r)
	case "DistributedVirtualPortgroup":
		v.forgetPortgroup(r)
	}
}

// isComplete tells whether stock has finished making a VM. It fills a new VM in
// without its lock, and sets the name last.
func (v *vcenter) isComplete(vm ref, changes []types.PropertyChange) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.complete[vm]; ok {
		return true
	}
	if slices.ContainsFunc(changes, func(c types.PropertyChange) bool { return c.Name == "name" }) {
		v.complete[vm] = true
	}
	return v.complete[vm]
}

// touchesNics tells whether NICs, power state, host or name of a VM may have changed.
func touchesNics(changes []types.PropertyChange) bool {
	for _, c := range changes {
		switch c.Name {
		case "runtime.host", "runtime.powerState", "name", "config":
			return true
		}
		if strings.HasPrefix(c.Name, "config.hardware.device") {
			return true
		}
	}
	return false
}

// lookup returns the inventory object of type T behind r, or T's zero value.
func lookup[T any](m *simulator.Registry, r ref) T {
	o, _ := m.Get(r).(T)
	return o
}

func soapFault(f types.BaseMethodFault) *soap.Fault { return simulator.Fault("", f) }

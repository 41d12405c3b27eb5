package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

const testSite = `{
 "vcenter": {"user": "admin", "password": "secret"},
 "hosts": [
  {"name": "esx-a", "user": "root", "password": "a", "vrouter": {"name": "vrouter-a",
   "smbios_uuid": "42160000-0000-4000-8000-00000000000a", "trunk_mac": "00:50:56:00:00:01", "trunk_portgroup": "tf-trunk"}},
  {"name": "esx-b", "user": "root", "password": "b"}],
 "portgroups": [{"name": "tf-trunk", "trunk": [[0, 4094]]}, {"name": "office", "vlan": 700, "ports": 2}],
 "vms": [{"name": "guest", "host": "esx-a", "networks": ["office"], "power": "on"}]}`

// fixture is a running site and a client of its vCenter over real TLS and SOAP.
type fixture struct {
	t      *testing.T
	ctx    context.Context
	server *server
	client *vim25.Client
}

func start(t *testing.T) *fixture { t.Helper(); return startSite(t, testSite) }

func startSite(t *testing.T, text string) *fixture {
	t.Helper()
	s, err := parseSite([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	running, err := startServer(s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(running.close)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	f := &fixture{t: t, ctx: ctx, server: running}
	f.client = f.login(running.ready.VCenter.Address, "admin", "secret")
	return f
}

func (f *fixture) login(address, user, password string) *vim25.Client {
	f.t.Helper()
	u := &url.URL{Scheme: "https", Host: address, Path: "/sdk"}
	c, err := vim25.NewClient(f.ctx, soap.NewClient(u, true))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := session.NewManager(c).Login(f.ctx, url.UserPassword(user, password)); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fixture) esxi(name string) *vim25.Client {
	f.t.Helper()
	for _, e := range f.server.ready.ESXi {
		if e.Name == name {
			return f.login(e.Address, "root", name[len(name)-1:])
		}
	}
	f.t.Fatalf("no host %s", name)
	return nil
}

// named returns the reference of an object of vCenter by type and name.
func (f *fixture) named(kind, name string) ref {
	f.t.Helper()
	for _, e := range f.server.v.registry.All(kind) {
		if entityName(e) == name {
			return e.Reference()
		}
	}
	f.t.Fatalf("no %s %s", kind, name)
	return ref{}
}

func (f *fixture) vm(name string) ref   { f.t.Helper(); return f.named("VirtualMachine", name) }
func (f *fixture) host(name string) ref { f.t.Helper(); return f.named("HostSystem", name) }
func (f *fixture) pg(name string) ref {
	f.t.Helper()
	return f.named("DistributedVirtualPortgroup", name)
}
func (f *fixture) dvs() *simulator.DistributedVirtualSwitch {
	return lookup[*simulator.DistributedVirtualSwitch](f.server.v.registry, f.named("DistributedVirtualSwitch", "dvs-tf"))
}

// task waits for a task and returns its result or fault.
func (f *fixture) task(r ref, err error) (types.AnyType, types.BaseMethodFault) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return waitTask(f.server.v.newContext(), r)
}

// done waits for a task that must succeed.
func (f *fixture) done(r ref, err error) types.AnyType {
	f.t.Helper()
	result, fault := f.task(r, err)
	if fault != nil {
		f.t.Fatalf("task failed: %T %+v", fault, fault)
	}
	return result
}

// fails waits for a task that must end with the wanted fault.
func (f *fixture) fails(want types.BaseMethodFault, r ref, err error) {
	f.t.Helper()
	_, fault := f.task(r, err)
	if !reflect.DeepEqual(fault, want) {
		f.t.Fatalf("fault %T %+v, want %T %+v", fault, fault, want, want)
	}
}

func (f *fixture) setPorts(specs ...types.DVPortConfigSpec) (ref, error) {
	res, err := methods.ReconfigureDVPort_Task(f.ctx, f.client, &types.ReconfigureDVPort_Task{This: f.dvs().Self, Port: specs})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

func (f *fixture) setPortgroup(pg ref, spec types.DVPortgroupConfigSpec) (ref, error) {
	res, err := methods.ReconfigureDVPortgroup_Task(f.ctx, f.client, &types.ReconfigureDVPortgroup_Task{This: pg, Spec: spec})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

// addPortgroup makes a portgroup whose ports may override VLAN and block.
func (f *fixture) addPortgroup(spec types.DVPortgroupConfigSpec) ref {
	f.t.Helper()
	if spec.Type == "" {
		spec.Type = earlyBinding
	}
	if spec.Policy == nil {
		spec.Policy = &types.VMwareDVSPortgroupPolicy{
			DVPortgroupPolicy:   types.DVPortgroupPolicy{BlockOverrideAllowed: true, PortConfigResetAtDisconnect: true},
			VlanOverrideAllowed: true,
		}
	}
	res, err := methods.CreateDVPortgroup_Task(f.ctx, f.client, &types.CreateDVPortgroup_Task{This: f.dvs().Self, Spec: spec})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.done(res.Returnval, nil).(ref)
}

func (f *fixture) reconfigure(vm ref, spec types.VirtualMachineConfigSpec) (ref, error) {
	res, err := methods.ReconfigVM_Task(f.ctx, f.client, &types.ReconfigVM_Task{This: vm, Spec: spec})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

// onPortgroup is a NIC's backing on a portgroup.
func (f *fixture) onPortgroup(pg ref) *types.VirtualEthernetCardDistributedVirtualPortBackingInfo {
	return &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
		Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: f.dvs().Uuid, PortgroupKey: pg.Value},
	}
}

func addNic(backing types.BaseVirtualDeviceBackingInfo) types.VirtualMachineConfigSpec {
	card := &types.VirtualVmxnet3{}
	card.Key, card.Backing = -1, backing
	return types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: card},
	}}
}

// edit changes the NIC with a device key.
func (f *fixture) edit(vm ref, key int32, change func(*types.VirtualEthernetCard)) (ref, error) {
	f.t.Helper()
	for _, d := range f.devices(vm) {
		if c, ok := d.(types.BaseVirtualEthernetCard); ok && d.GetVirtualDevice().Key == key {
			change(c.GetVirtualEthernetCard())
			return f.reconfigure(vm, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
				&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: d},
			}})
		}
	}
	f.t.Fatalf("%s has no NIC %d", vm, key)
	return ref{}, nil
}

func (f *fixture) devices(vm ref) []types.BaseVirtualDevice {
	f.t.Helper()
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "config.hardware.device")
	return o.Config.Hardware.Device
}

func (f *fixture) read(c *vim25.Client, r ref, into any, paths ...string) {
	f.t.Helper()
	if err := object.NewCommon(c, r).Properties(f.ctx, r, paths, into); err != nil {
		f.t.Fatal(err)
	}
}

// port fetches one port by key.
func (f *fixture) port(key string) types.DistributedVirtualPort {
	f.t.Helper()
	ports := f.ports(&types.DistributedVirtualSwitchPortCriteria{PortKey: []string{key}})
	if len(ports) != 1 {
		f.t.Fatalf("port %s: %d found", key, len(ports))
	}
	return ports[0]
}

func (f *fixture) ports(c *types.DistributedVirtualSwitchPortCriteria) []types.DistributedVirtualPort {
	f.t.Helper()
	res, err := methods.FetchDVPorts(f.ctx, f.client, &types.FetchDVPorts{This: f.dvs().Self, Criteria: c})
	if err != nil {
		f.t.Fatal(err)
	}
	return res.Returnval
}

// portOf returns the port that a VM's NIC has.
func (f *fixture) portOf(vm ref, key int32) types.DistributedVirtualPort {
	f.t.Helper()
	nic, ok := dvNics(f.devices(vm))[key]
	if !ok || nic.port.PortKey == "" {
		f.t.Fatalf("%s: NIC %d has no port", vm, key)
	}
	return f.port(nic.port.PortKey)
}

func vlanOf(p types.DistributedVirtualPort) int32 {
	return p.Config.Setting.(*types.VMwareDVSPortSetting).Vlan.(*types.VmwareDistributedVirtualSwitchVlanIdSpec).VlanId
}

func isInherited(p types.DistributedVirtualPort) bool {
	return p.Config.Setting.(*types.VMwareDVSPortSetting).Vlan.GetVmwareDistributedVirtualSwitchVlanSpec().Inherited
}

// vlanSpec is a port specification with a VLAN.
func vlanSpec(key string, vlan int32) types.DVPortConfigSpec {
	return types.DVPortConfigSpec{Operation: "edit", Key: key, Setting: &types.VMwareDVSPortSetting{
		Vlan: &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: vlan},
	}}
}

func (f *fixture) createVM(name, host string, networks ...types.BaseVirtualDeviceBackingInfo) ref {
	f.t.Helper()
	folder, spec := f.createSpec(name, networks...)
	h := f.host(host)
	res, err := methods.CreateVM_Task(f.ctx, f.client, &types.CreateVM_Task{This: folder, Config: spec, Pool: f.pool(), Host: &h})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.done(res.Returnval, nil).(ref)
}

func (f *fixture) createSpec(name string, networks ...types.BaseVirtualDeviceBackingInfo) (ref, types.VirtualMachineConfigSpec) {
	spec := types.VirtualMachineConfigSpec{
		Name: name, GuestId: "otherGuest", Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastoreName + "]"},
	}
	for _, n := range networks {
		spec.DeviceChange = append(spec.DeviceChange, addNic(n).DeviceChange...)
	}
	dc := lookup[*simulator.Datacenter](f.server.v.registry, f.named("Datacenter", datacenterName))
	return dc.VmFolder, spec
}

func (f *fixture) pool() ref {
	cl := lookup[*simulator.ClusterComputeResource](f.server.v.registry, f.named("ClusterComputeResource", clusterName))
	return *cl.ResourcePool
}

func (f *fixture) powerOn(vm ref) {
	f.t.Helper()
	res, err := methods.PowerOnVM_Task(f.ctx, f.client, &types.PowerOnVM_Task{This: vm})
	if err != nil {
		f.t.Fatal(err)
	}
	f.done(res.Returnval, nil)
}

func (f *fixture) powerOff(vm ref) {
	f.t.Helper()
	res, err := methods.PowerOffVM_Task(f.ctx, f.client, &types.PowerOffVM_Task{This: vm})
	if err != nil {
		f.t.Fatal(err)
	}
	f.done(res.Returnval, nil)
}

func (f *fixture) migrate(vm, host ref) (ref, error) {
	res, err := methods.MigrateVM_Task(f.ctx, f.client, &types.MigrateVM_Task{
		This: vm, Host: &host, Priority: types.VirtualMachineMovePriorityDefaultPriority,
	})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

// control calls the control API and returns status and decoded answer.
func (f *fixture) control(method, path string, body any) (int, any) {
	f.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			f.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(f.ctx, method, "http://"+f.server.ready.Control+path, in)
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer any
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, answer
}

// watcher is a property collector with one filter.
type watcher struct {
	f         *fixture
	c         *vim25.Client
	collector ref
	version   string
}

// watch starts a collector of the given paths on all objects of a type in a container view.
func (f *fixture) watch(c *vim25.Client, kind string, paths ...string) *watcher {
	f.t.Helper()
	view, err := methods.CreateContainerView(f.ctx, c, &types.CreateContainerView{
		This: *c.ServiceContent.ViewManager, Container: c.ServiceContent.RootFolder, Type: []string{kind}, Recursive: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.watchSet(c, types.ObjectSpec{Obj: view.Returnval, Skip: types.NewBool(true), SelectSet: []types.BaseSelectionSpec{
		&types.TraversalSpec{Type: "ContainerView", Path: "view"},
	}}, types.PropertySpec{Type: kind, PathSet: paths})
}

func (f *fixture) watchSet(c *vim25.Client, objects types.ObjectSpec, set types.PropertySpec) *watcher {
	f.t.Helper()
	made, err := methods.CreatePropertyCollector(f.ctx, c, &types.CreatePropertyCollector{This: c.ServiceContent.PropertyCollector})
	if err != nil {
		f.t.Fatal(err)
	}
	w := &watcher{f: f, c: c, collector: made.Returnval}
	_, err = methods.CreateFilter(f.ctx, c, &types.CreateFilter{This: w.collector, Spec: types.PropertyFilterSpec{
		ObjectSet: []types.ObjectSpec{objects}, PropSet: []types.PropertySpec{set},
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	return w
}

// next returns the next updates, or none after the seconds.
func (w *watcher) next(seconds int32) []types.ObjectUpdate {
	w.f.t.Helper()
	res, err := methods.WaitForUpdatesEx(w.f.ctx, w.c, &types.WaitForUpdatesEx{
		This: w.collector, Version: w.version, Options: &types.WaitOptions{MaxWaitSeconds: &seconds},
	})
	if err != nil {
		w.f.t.Fatal(err)
	}
	if res.Returnval == nil {
		return nil
	}
	w.version = res.Returnval.Version
	var out []types.ObjectUpdate
	for _, fs := range res.Returnval.FilterSet {
		out = append(out, fs.ObjectSet...)
	}
	return out
}

// until reads updates until one meets the condition.
func (w *watcher) until(what string, condition func(types.ObjectUpdate) bool) {
	w.f.t.Helper()
	for range 50 {
		for _, u := range w.next(2) {
			if condition(u) {
				return
			}
		}
	}
	w.f.t.Fatalf("no update: %s", what)
}

// value tells whether an update assigns a value to a property.
func value(name string, want any) func(types.ObjectUpdate) bool {
	return func(u types.ObjectUpdate) bool {
		for _, c := range u.ChangeSet {
			if c.Name == name && reflect.DeepEqual(c.Val, want) {
				return true
			}
		}
		return false
	}
}

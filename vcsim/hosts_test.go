package main

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// twoClusters has a host in each of two clusters, and two datastores.
const twoClusters = `{
 "vcenter": {"user": "admin", "password": "secret"},
 "hosts": [
  {"name": "esx-a", "user": "root", "password": "a"},
  {"name": "esx-b", "user": "root", "password": "b", "cluster": "edge"}],
 "datastores": ["slow"],
 "portgroups": [{"name": "office", "vlan": 700}],
 "vms": [{"name": "guest", "host": "esx-a", "networks": ["office"], "power": "on"}]}`

func (f *fixture) state(vm ref) types.VirtualMachineRuntimeInfo {
	f.t.Helper()
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "runtime")
	return o.Runtime
}

// loginAt logs in to a host anew.
func (f *fixture) loginAt(name string) error {
	f.t.Helper()
	for _, e := range f.server.ready.ESXi {
		if e.Name != name {
			continue
		}
		c, err := vim25.NewClient(f.ctx, soap.NewClient(&url.URL{Scheme: "https", Host: e.Address, Path: "/sdk"}, true))
		if err != nil {
			f.t.Fatal(err)
		}
		return session.NewManager(c).Login(f.ctx, url.UserPassword("root", name[len(name)-1:]))
	}
	return errors.New("no such host")
}

func TestHostInLockdownModeEndsSessionsAndRefusesLogins(t *testing.T) {
	f := start(t)
	esx := f.esxi("esx-a")
	if _, err := methods.EnterLockdownMode(f.ctx, f.client, &types.EnterLockdownMode{This: f.host("esx-a")}); err != nil {
		t.Fatal(err)
	}
	var host mo.HostSystem
	f.read(f.client, f.host("esx-a"), &host, "config.lockdownMode")
	if host.Config.LockdownMode != types.HostLockdownModeLockdownNormal {
		t.Errorf("mode %s", host.Config.LockdownMode)
	}
	if err := f.clock(esx, 10*time.Second); err == nil {
		t.Error("the session goes on")
	}
	err := f.loginAt("esx-a")
	if err == nil || !soap.IsSoapFault(err) {
		t.Fatalf("login: %v", err)
	}
	if _, ok := soap.ToSoapFault(err).VimFault().(types.NoPermission); !ok {
		t.Errorf("fault %T", soap.ToSoapFault(err).VimFault())
	}
	if err := f.loginAt("esx-b"); err != nil {
		t.Errorf("another host: %v", err)
	}
	if _, err := methods.EnterLockdownMode(f.ctx, f.client, &types.EnterLockdownMode{This: f.host("esx-a")}); err == nil {
		t.Error("entered twice")
	}
	if _, err := methods.ExitLockdownMode(f.ctx, f.client, &types.ExitLockdownMode{This: f.host("esx-a")}); err != nil {
		t.Fatal(err)
	}
	if err := f.loginAt("esx-a"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDisconnectedHostShowsItsVmsAsDisconnectedAndGoesOnItself(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "runtime.connectionState")
	w.next(0)
	res, err := methods.DisconnectHost_Task(f.ctx, f.client, &types.DisconnectHost_Task{This: f.host("esx-a")})
	if err != nil {
		t.Fatal(err)
	}
	f.done(res.Returnval, nil)
	w.until("disconnected", value("runtime.connectionState", types.VirtualMachineConnectionStateDisconnected))
	if err := f.clock(f.esxi("esx-a"), 10*time.Second); err != nil {
		t.Errorf("the host itself: %v", err)
	}
	back, err := methods.ReconnectHost_Task(f.ctx, f.client, &types.ReconnectHost_Task{This: f.host("esx-a")})
	if err != nil {
		t.Fatal(err)
	}
	f.done(back.Returnval, nil)
	w.until("connected", value("runtime.connectionState", types.VirtualMachineConnectionStateConnected))
}

func TestChangeOfAPortOfALostHostStandsAndNamesTheHost(t *testing.T) {
	f := start(t)
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 1})
	task, err := f.reconfigure(f.vm("guest"), addNic(f.onPortgroup(pg)))
	f.done(task, err)
	res, err := methods.DisconnectHost_Task(f.ctx, f.client, &types.DisconnectHost_Task{This: f.host("esx-a")})
	if err != nil {
		t.Fatal(err)
	}
	f.done(res.Returnval, nil)
	port := f.portOf(f.vm("guest"), firstNicKey+1)
	task, err = f.setPorts(vlanSpec(port.Key, 42))
	_, fault := f.task(task, err)
	bulk, ok := fault.(*types.DvsOperationBulkFault)
	if !ok || len(bulk.HostFault) != 1 || bulk.HostFault[0].Host != f.host("esx-a") {
		t.Fatalf("fault %T %+v", fault, fault)
	}
	if vlan := vlanOf(f.portOf(f.vm("guest"), firstNicKey+1)); vlan != 42 {
		t.Errorf("VLAN %d", vlan)
	}
}

func TestHostThatRebootsHasItsGuestsOffAndItsVrouterOn(t *testing.T) {
	f := start(t)
	esx := f.esxi("esx-a")
	f.control("POST", "/host-power", map[string]any{"host": "esx-a", "on": false})
	if err := f.clock(esx, 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without power it said %v", err)
	}
	lost := f.state(f.vm("guest"))
	if lost.PowerState != types.VirtualMachinePowerStatePoweredOn || lost.ConnectionState != types.VirtualMachineConnectionStateDisconnected {
		t.Errorf("vCenter shows %s, %s", lost.PowerState, lost.ConnectionState)
	}
	f.control("POST", "/host-power", map[string]any{"host": "esx-a", "on": true})
	if err := f.clock(esx, 10*time.Second); err == nil {
		t.Error("a session outlived the reboot")
	}
	if back := f.state(f.vm("guest")); back.PowerState != types.VirtualMachinePowerStatePoweredOff {
		t.Errorf("guest %s", back.PowerState)
	}
	if back := f.state(f.vm("vrouter-a")); back.PowerState != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("vRouter %s", back.PowerState)
	}
}

func TestGuestsOfADeadHostAreRestartedOnAnother(t *testing.T) {
	f := start(t)
	key := f.portOf(f.vm("guest"), firstNicKey).Key
	f.control("POST", "/host-power", map[string]any{"host": "esx-a", "on": false, "restart_on": "esx-b"})
	now := f.state(f.vm("guest"))
	if now.PowerState != types.VirtualMachinePowerStatePoweredOn || *now.Host != f.host("esx-b") || now.ConnectionState != types.VirtualMachineConnectionStateConnected {
		t.Errorf("guest %s on %v, %s", now.PowerState, now.Host, now.ConnectionState)
	}
	if port := f.portOf(f.vm("guest"), firstNicKey); port.Key != key || *port.ProxyHost != f.host("esx-b") {
		t.Errorf("port %s on %v", port.Key, port.ProxyHost)
	}
	if still := f.state(f.vm("vrouter-a")); *still.Host != f.host("esx-a") {
		t.Errorf("vRouter on %v", still.Host)
	}
	f.control("POST", "/host-power", map[string]any{"host": "esx-a", "on": true})
	if after := f.state(f.vm("guest")); after.PowerState != types.VirtualMachinePowerStatePoweredOn {
		t.Errorf("after the reboot of its old host it is %s", after.PowerState)
	}
}

func TestHostPowerSaysWhatIsAllowed(t *testing.T) {
	f := start(t)
	for _, body := range []map[string]any{
		{"host": "esx-z", "on": true}, {"host": "esx-a"}, {"host": "esx-a", "on": false, "restart_on": "esx-a"},
		{"host": "esx-a", "on": true, "restart_on": "esx-b"},
	} {
		if status, _ := f.control("POST", "/host-power", body); status != 400 {
			t.Errorf("%v: status %d", body, status)
		}
	}
}

func TestMoveToAnotherClusterNeedsAPoolThere(t *testing.T) {
	f := startSite(t, twoClusters)
	vm, b := f.vm("guest"), f.host("esx-b")
	task, err := f.migrate(vm, b)
	f.fails(&types.InvalidArgument{InvalidProperty: "pool"}, task, err)
	var cluster mo.ClusterComputeResource
	f.read(f.client, f.named("ClusterComputeResource", "edge"), &cluster, "resourcePool")
	slow := f.named("Datastore", "slow")
	task, err = f.relocate(vm, types.VirtualMachineRelocateSpec{Host: &b, Pool: cluster.ResourcePool, Datastore: &slow})
	f.done(task, err)
	var moved mo.VirtualMachine
	f.read(f.client, vm, &moved, "runtime.host", "resourcePool", "datastore")
	if *moved.Runtime.Host != b || *moved.ResourcePool != *cluster.ResourcePool || !slices.Contains(moved.Datastore, slow) {
		t.Errorf("on %v in %v at %v", moved.Runtime.Host, moved.ResourcePool, moved.Datastore)
	}
}

func TestMoveByDrsIsToldAsOne(t *testing.T) {
	f := start(t)
	f.control("POST", "/drs-move", map[string]any{"vm": "guest", "host": "esx-b"})
	f.until("the guest on esx-b", func() bool { return *f.state(f.vm("guest")).Host == f.host("esx-b") })
	f.until("its event", func() bool {
		got := f.eventTypes("VmBeingHotMigratedEvent", "DrsVmMigratedEvent", "VmMigratedEvent")
		return slices.Equal(got, []string{"VmBeingHotMigratedEvent", "DrsVmMigratedEvent"})
	})
	if status, _ := f.control("POST", "/drs-move", map[string]any{"vm": "guest", "host": "esx-z"}); status != 400 {
		t.Errorf("status %d", status)
	}
}

// until waits for a condition.
func (f *fixture) until(what string, condition func() bool) {
	f.t.Helper()
	for f.ctx.Err() == nil {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatalf("never: %s", what)
}

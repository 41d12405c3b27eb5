package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

func TestPowerAndConnectionDecideAboutTheLink(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	link := func() bool { return f.portOf(vm, firstNicKey).State.RuntimeInfo.LinkUp }
	if !link() {
		t.Error("down while the VM runs")
	}
	r, err := f.edit(vm, firstNicKey, func(c *types.VirtualEthernetCard) { c.Connectable.Connected = false })
	f.done(r, err)
	if link() {
		t.Error("up while the NIC is unplugged")
	}
	r, err = f.edit(vm, firstNicKey, func(c *types.VirtualEthernetCard) { c.Connectable.Connected = true })
	f.done(r, err)
	key := f.portOf(vm, firstNicKey).Key
	f.powerOff(vm)
	if p := f.portOf(vm, firstNicKey); p.State.RuntimeInfo.LinkUp || p.Key != key {
		t.Errorf("after power off: link %v port %s, want down and %s", p.State.RuntimeInfo.LinkUp, p.Key, key)
	}
	f.powerOn(vm)
	if !link() {
		t.Error("down after power on")
	}
}

func TestFullPortgroupGrowsIfItMay(t *testing.T) {
	f := start(t)
	office := f.pg("office")
	f.createVM("second", "esx-a", f.onPortgroup(office))
	f.createVM("third", "esx-a", f.onPortgroup(office))
	f.server.v.worker.sync()
	if got := len(f.portKeys("office")); got != 2+autoExpandStep {
		t.Errorf("%d ports", got)
	}
	if got := f.portgroupConfig(office).NumPorts; got != 2+autoExpandStep {
		t.Errorf("numPorts %d", got)
	}
}

func TestFullPortgroupRefusesIfItMayNotGrow(t *testing.T) {
	f := start(t)
	small := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "small", NumPorts: 1, AutoExpand: types.NewBool(false)})
	vm := f.vm("guest")
	r, err := f.reconfigure(vm, addNic(f.onPortgroup(small)))
	f.done(r, err)
	r, err = f.reconfigure(vm, addNic(f.onPortgroup(small)))
	f.fails(&types.ResourceInUse{Type: "DistributedVirtualPortgroup", Name: "small"}, r, err)
	backing := f.onPortgroup(small)
	backing.Port.PortKey = f.portKeys("small")[0]
	r, err = f.reconfigure(f.vm("vrouter-a"), addNic(backing))
	f.fails(&types.ResourceInUse{Type: "DistributedVirtualPort", Name: backing.Port.PortKey}, r, err)
}

func TestNicsThatAreRefused(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	unknownSwitch := f.onPortgroup(f.pg("office"))
	unknownSwitch.Port.SwitchUuid = "50 00"
	noPortgroup := f.onPortgroup(ref{Value: "dvportgroup-999"})
	noNetwork := &types.VirtualEthernetCardNetworkBackingInfo{}
	noNetwork.DeviceName = "nowhere"
	for name, c := range map[string]struct {
		backing types.BaseVirtualDeviceBackingInfo
		want    types.BaseMethodFault
	}{
		"unknown switch":    {unknownSwitch, &types.NotFound{}},
		"unknown portgroup": {noPortgroup, &types.InvalidArgument{InvalidProperty: "spec.deviceChange.device.backing.port.portgroupKey"}},
		"unknown network": {noNetwork, &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{
			InvalidVmConfig: types.InvalidVmConfig{Property: "deviceChange.device.backing"},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := f.reconfigure(vm, addNic(c.backing))
			f.fails(c.want, r, err)
		})
	}
}

func TestNewNicsAreNumberedLikeOnVsphere(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	for range 2 {
		r, err := f.reconfigure(vm, addNic(f.onPortgroup(f.pg("office"))))
		f.done(r, err)
	}
	nics := dvNics(f.devices(vm))
	for i, label := range []string{"Network adapter 1", "Network adapter 2", "Network adapter 3"} {
		nic, ok := nics[firstNicKey+int32(i)]
		if !ok {
			t.Fatalf("no NIC with key %d", firstNicKey+i)
		}
		if nic.card.DeviceInfo.GetDescription().Label != label || *nic.card.UnitNumber != firstNicUnit+int32(i) {
			t.Errorf("NIC %d: %q unit %d", i, nic.card.DeviceInfo.GetDescription().Label, *nic.card.UnitNumber)
		}
	}
}

func TestEveryNicHasAMacOfItsOwn(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	folder, _ := f.createSpec("")
	res, err := methods.CloneVM_Task(f.ctx, f.client, &types.CloneVM_Task{This: vm, Folder: folder, Name: "clone"})
	if err != nil {
		t.Fatal(err)
	}
	clone := f.done(res.Returnval, nil).(ref)
	a, b := dvNics(f.devices(vm))[firstNicKey], dvNics(f.devices(clone))[firstNicKey]
	if a.card.MacAddress == b.card.MacAddress || b.card.MacAddress == "" {
		t.Errorf("MACs %s and %s", a.card.MacAddress, b.card.MacAddress)
	}
	if a.port.PortKey == b.port.PortKey || b.port.PortKey == "" {
		t.Errorf("ports %s and %s", a.port.PortKey, b.port.PortKey)
	}
}

func TestPortIsResetAtDisconnectIfThePolicySaysSo(t *testing.T) {
	for _, reset := range []bool{true, false} {
		f := start(t)
		pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 1, Policy: &types.VMwareDVSPortgroupPolicy{
			DVPortgroupPolicy: types.DVPortgroupPolicy{PortConfigResetAtDisconnect: reset}, VlanOverrideAllowed: true,
		}})
		vm := f.vm("guest")
		r, err := f.reconfigure(vm, addNic(f.onPortgroup(pg)))
		f.done(r, err)
		key := f.portOf(vm, firstNicKey+1).Key
		r, err = f.setPorts(vlanSpec(key, 77))
		f.done(r, err)
		r, err = f.edit(vm, firstNicKey+1, func(c *types.VirtualEthernetCard) { c.Backing = f.onPortgroup(f.pg("office")) })
		f.done(r, err)
		p := f.port(key)
		if want := map[bool]int32{true: 0, false: 77}[reset]; vlanOf(p) != want || p.Connectee != nil || p.ProxyHost != nil {
			t.Errorf("reset %v: VLAN %d, want %d; connectee %v", reset, vlanOf(p), want, p.Connectee)
		}
	}
}

func TestEphemeralPortsComeAndGoWithThePower(t *testing.T) {
	f := start(t)
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "short", Type: ephemeral})
	vm := f.createVM("visitor", "esx-a", f.onPortgroup(pg))
	if n := len(f.portKeys("short")); n != 0 {
		t.Errorf("%d ports while the VM is off", n)
	}
	f.powerOn(vm)
	if n := len(f.portKeys("short")); n != 1 {
		t.Errorf("%d ports while the VM is on", n)
	}
	f.powerOff(vm)
	if n := len(f.portKeys("short")); n != 0 {
		t.Errorf("%d ports after power off", n)
	}
}

func TestDeletedVmFreesItsPort(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	key := f.portOf(vm, firstNicKey).Key
	f.powerOff(vm)
	res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: vm})
	if err != nil {
		t.Fatal(err)
	}
	f.done(res.Returnval, nil)
	if p := f.port(key); p.Connectee != nil {
		t.Errorf("connectee %+v", p.Connectee)
	}
}

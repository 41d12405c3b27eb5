package main

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func TestPortKeysAreUniqueOnTheSwitch(t *testing.T) {
	f := start(t)
	seen := map[string]bool{}
	for _, p := range f.ports(nil) {
		if seen[p.Key] {
			t.Errorf("port key %s twice", p.Key)
		}
		seen[p.Key] = true
	}
	if len(seen) != 2*uplinksPerHost+defaultPorts+2 {
		t.Errorf("%d ports", len(seen))
	}
}

func TestPortShowsWhoIsConnectedAndWhere(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	p := f.portOf(vm, firstNicKey)
	if p.Connectee == nil || *p.Connectee.ConnectedEntity != vm || p.Connectee.NicKey != "4000" || p.Connectee.Type != "vmVnic" {
		t.Errorf("connectee %+v", p.Connectee)
	}
	if p.ProxyHost == nil || *p.ProxyHost != f.host("esx-a") {
		t.Errorf("proxyHost %v", p.ProxyHost)
	}
	if s := p.State; s == nil || !s.RuntimeInfo.LinkUp || s.RuntimeInfo.Blocked || s.RuntimeInfo.VlanIds[0].Start != 700 {
		t.Errorf("state %+v", p.State)
	}
	if vlanOf(p) != 700 || !isInherited(p) {
		t.Errorf("VLAN %d inherited %v", vlanOf(p), isInherited(p))
	}
}

// attached makes a portgroup that allows overrides, moves the guest there and returns the port.
func attached(f *fixture) types.DistributedVirtualPort {
	f.t.Helper()
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 4})
	vm := f.vm("guest")
	r, err := f.edit(vm, firstNicKey, func(c *types.VirtualEthernetCard) { c.Backing = f.onPortgroup(pg) })
	f.done(r, err)
	return f.portOf(vm, firstNicKey)
}

func TestOverrideIsSetShownAndDropped(t *testing.T) {
	f := start(t)
	key := attached(f).Key
	spec := vlanSpec(key, 101)
	spec.Setting.(*types.VMwareDVSPortSetting).Blocked = &types.BoolPolicy{Value: types.NewBool(true)}
	r, err := f.setPorts(spec)
	f.done(r, err)
	p := f.port(key)
	if vlanOf(p) != 101 || isInherited(p) || p.Config.ConfigVersion != "1" || !p.State.RuntimeInfo.Blocked {
		t.Errorf("after the override: VLAN %d inherited %v version %s state %+v", vlanOf(p), isInherited(p), p.Config.ConfigVersion, p.State.RuntimeInfo)
	}
	drop := vlanSpec(key, 0)
	drop.Setting.(*types.VMwareDVSPortSetting).Vlan.GetVmwareDistributedVirtualSwitchVlanSpec().Inherited = true
	r, err = f.setPorts(drop)
	f.done(r, err)
	p = f.port(key)
	if vlanOf(p) != 0 || !isInherited(p) || !p.State.RuntimeInfo.Blocked {
		t.Errorf("after dropping the VLAN: %d inherited %v; the block must stay: %+v", vlanOf(p), isInherited(p), p.State.RuntimeInfo)
	}
}

func TestPortSpecificationsThatAreRefused(t *testing.T) {
	f := start(t)
	key := attached(f).Key
	office := f.portKeys("office")[0]
	stale := vlanSpec(key, 5)
	stale.ConfigVersion = "7"
	remove := vlanSpec(key, 5)
	remove.Operation = "remove"
	for name, c := range map[string]struct {
		spec types.DVPortConfigSpec
		want types.BaseMethodFault
	}{
		"stale version":      {stale, &types.ConcurrentAccess{}},
		"unknown port":       {vlanSpec("9999", 5), &types.NotFound{}},
		"VLAN 4095":          {vlanSpec(key, 4095), &types.InvalidArgument{InvalidProperty: "port.setting.vlan.vlanId"}},
		"VLAN -1":            {vlanSpec(key, -1), &types.InvalidArgument{InvalidProperty: "port.setting.vlan.vlanId"}},
		"other operation":    {remove, &types.InvalidArgument{InvalidProperty: "port.operation"}},
		"override forbidden": {vlanSpec(office, 5), &types.InvalidArgument{InvalidProperty: "port.setting.vlan"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := f.setPorts(c.spec)
			f.fails(c.want, r, err)
		})
	}
}

func (f *fixture) portKeys(portgroup string) []string {
	f.t.Helper()
	var keys []string
	for _, p := range f.ports(&types.DistributedVirtualSwitchPortCriteria{
		Inside: types.NewBool(true), PortgroupKey: []string{f.pg(portgroup).Value},
	}) {
		keys = append(keys, p.Key)
	}
	return keys
}

func TestOneRefusedPortLeavesAllAsTheyWere(t *testing.T) {
	f := start(t)
	attached(f)
	keys := f.portKeys("blue")
	r, err := f.setPorts(vlanSpec(keys[0], 11), vlanSpec(keys[1], 4095))
	f.fails(&types.InvalidArgument{InvalidProperty: "port.setting.vlan.vlanId"}, r, err)
	if p := f.port(keys[0]); vlanOf(p) != 0 || p.Config.ConfigVersion != "0" {
		t.Errorf("first port changed: VLAN %d version %s", vlanOf(p), p.Config.ConfigVersion)
	}
}

func TestManyPortsInOneCallEachWithItsVersion(t *testing.T) {
	f := start(t)
	attached(f)
	keys := f.portKeys("blue")
	a, b := vlanSpec(keys[0], 11), vlanSpec(keys[1], 12)
	a.ConfigVersion, b.ConfigVersion = "0", "0"
	r, err := f.setPorts(a, b)
	f.done(r, err)
	if vlanOf(f.port(keys[0])) != 11 || vlanOf(f.port(keys[1])) != 12 {
		t.Error("a VLAN is missing")
	}
}

func TestCriteriaSelectPorts(t *testing.T) {
	f := start(t)
	yes, no := types.NewBool(true), types.NewBool(false)
	office := f.pg("office").Value
	for name, c := range map[string]struct {
		criteria types.DistributedVirtualSwitchPortCriteria
		want     int
	}{
		"connected":        {types.DistributedVirtualSwitchPortCriteria{Connected: yes}, 2},
		"free":             {types.DistributedVirtualSwitchPortCriteria{Connected: no, UplinkPort: no}, defaultPorts},
		"active":           {types.DistributedVirtualSwitchPortCriteria{Active: yes}, 2},
		"uplinks":          {types.DistributedVirtualSwitchPortCriteria{UplinkPort: yes}, 2 * uplinksPerHost},
		"in a portgroup":   {types.DistributedVirtualSwitchPortCriteria{Inside: yes, PortgroupKey: []string{office}}, 2},
		"outside of it":    {types.DistributedVirtualSwitchPortCriteria{Inside: no, PortgroupKey: []string{office}}, defaultPorts + 2*uplinksPerHost},
		"uplinks of esx-b": {types.DistributedVirtualSwitchPortCriteria{Host: []ref{f.host("esx-b")}}, uplinksPerHost},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(f.ports(&c.criteria)); got != c.want {
				t.Errorf("%d ports, want %d", got, c.want)
			}
		})
	}
}

func TestPortsComeInTheOrderOfTheirNumbers(t *testing.T) {
	f := start(t)
	f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 4})
	var keys []string
	for _, p := range f.ports(nil) {
		keys = append(keys, p.Key)
	}
	if !slices.Contains(keys, "10") || slices.Index(keys, "9") > slices.Index(keys, "10") {
		t.Errorf("keys %v", keys)
	}
}

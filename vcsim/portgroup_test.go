package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func (f *fixture) portgroupConfig(pg ref) types.DVPortgroupConfigInfo {
	f.t.Helper()
	var o mo.DistributedVirtualPortgroup
	f.read(f.client, pg, &o, "config")
	return o.Config
}

func TestNewPortgroupShowsWhatNobodySet(t *testing.T) {
	f := start(t)
	cfg := f.portgroupConfig(f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 3}))
	setting := cfg.DefaultPortConfig.(*types.VMwareDVSPortSetting)
	if cfg.ConfigVersion != "0" || cfg.NumPorts != 3 || *cfg.Uplink || !*cfg.AutoExpand || cfg.BackingType != "standard" {
		t.Errorf("config %+v", cfg)
	}
	if setting.Blocked == nil || *setting.Blocked.Value || setting.SecurityPolicy == nil {
		t.Errorf("setting %+v", setting)
	}
}

func TestReconfigureKeepsWhatTheSpecificationLeavesOut(t *testing.T) {
	f := start(t)
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{
		Name: "blue", NumPorts: 3, Description: "of blue",
		VendorSpecificConfig: []types.DistributedVirtualSwitchKeyedOpaqueBlob{{Key: "other", OpaqueData: "kept"}},
		DefaultPortConfig:    &types.VMwareDVSPortSetting{Vlan: &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 7}},
	})
	before := f.portgroupConfig(pg)
	r, err := f.setPortgroup(pg, types.DVPortgroupConfigSpec{
		ConfigVersion:        before.ConfigVersion,
		VendorSpecificConfig: []types.DistributedVirtualSwitchKeyedOpaqueBlob{{Key: "mark", OpaqueData: "1"}},
		DefaultPortConfig: &types.VMwareDVSPortSetting{DVPortSetting: types.DVPortSetting{
			Blocked: &types.BoolPolicy{Value: types.NewBool(true)},
		}},
	})
	f.done(r, err)
	cfg := f.portgroupConfig(pg)
	setting := cfg.DefaultPortConfig.(*types.VMwareDVSPortSetting)
	if cfg.Name != "blue" || cfg.Description != "of blue" || cfg.NumPorts != 3 || cfg.Policy == nil || cfg.Type != earlyBinding {
		t.Errorf("a field was cleared: %+v", cfg)
	}
	if setting.Vlan.(*types.VmwareDistributedVirtualSwitchVlanIdSpec).VlanId != 7 || !*setting.Blocked.Value {
		t.Errorf("settings were not merged: %+v", setting)
	}
	if len(cfg.VendorSpecificConfig) != 2 || cfg.VendorSpecificConfig[0].OpaqueData != "kept" {
		t.Errorf("blobs %+v", cfg.VendorSpecificConfig)
	}
	if cfg.ConfigVersion != "1" {
		t.Errorf("version %s", cfg.ConfigVersion)
	}
}

func TestPortgroupSpecificationsThatAreRefused(t *testing.T) {
	f := start(t)
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 3})
	office := f.pg("office")
	for name, c := range map[string]struct {
		of   ref
		spec types.DVPortgroupConfigSpec
		want types.BaseMethodFault
	}{
		"stale version":         {pg, types.DVPortgroupConfigSpec{ConfigVersion: "9"}, &types.ConcurrentAccess{}},
		"name in another case":  {pg, types.DVPortgroupConfigSpec{Name: "OFFICE"}, &types.DuplicateName{Name: "OFFICE", Object: office}},
		"fewer ports than used": {f.pg("tf-trunk"), types.DVPortgroupConfigSpec{NumPorts: 0, ConfigVersion: "8"}, &types.ConcurrentAccess{}},
		"VLAN 5000": {pg, types.DVPortgroupConfigSpec{DefaultPortConfig: &types.VMwareDVSPortSetting{
			Vlan: &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 5000},
		}}, &types.InvalidArgument{InvalidProperty: "spec.defaultPortConfig.vlan"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := f.setPortgroup(c.of, c.spec)
			f.fails(c.want, r, err)
		})
	}
}

func TestAddRefusesATakenName(t *testing.T) {
	f := start(t)
	res, err := methods.AddDVPortgroup_Task(f.ctx, f.client, &types.AddDVPortgroup_Task{
		This: f.dvs().Self, Spec: []types.DVPortgroupConfigSpec{{Name: "Office", Type: earlyBinding}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.fails(&types.DuplicateName{Name: "Office", Object: f.pg("office")}, res.Returnval, nil)
}

func TestPortgroupChangesArePushed(t *testing.T) {
	f := start(t)
	pg := f.pg("office")
	w := f.watch(f.client, "DistributedVirtualPortgroup", "name", "config", "portKeys", "vm")
	w.next(0)
	r, err := f.setPortgroup(pg, types.DVPortgroupConfigSpec{Name: "bureau"})
	f.done(r, err)
	w.until("name", value("name", "bureau"))
	if f.dvs().Summary.PortgroupName == nil {
		t.Error("the switch lists no portgroups")
	}
}

func TestPortsOfAPortgroupGrowAndShrink(t *testing.T) {
	f := start(t)
	pg := f.pg("office")
	for _, n := range []int32{6, 1} {
		r, err := f.setPortgroup(pg, types.DVPortgroupConfigSpec{NumPorts: n})
		f.done(r, err)
		if got := len(f.portKeys("office")); got != int(n) {
			t.Errorf("%d ports, want %d", got, n)
		}
	}
	if f.port(f.portKeys("office")[0]).Connectee == nil {
		t.Error("the port in use was removed")
	}
}

func TestDestroyOfAPortgroupInUseIsRefused(t *testing.T) {
	f := start(t)
	pg, vm := f.pg("office"), f.vm("guest")
	key := f.portOf(vm, firstNicKey).Key
	destroy := func() (ref, error) {
		res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: pg})
		return res.Returnval, err
	}
	r, err := destroy()
	f.fails(&types.ResourceInUse{Type: "DistributedVirtualPort", Name: key}, r, err)
	r, err = f.edit(vm, firstNicKey, func(c *types.VirtualEthernetCard) { c.Backing = f.onPortgroup(f.pg("tf-trunk")) })
	f.done(r, err)
	r, err = destroy()
	f.done(r, err)
	for _, p := range f.ports(nil) {
		if p.PortgroupKey == pg.Value {
			t.Errorf("port %s is still there", p.Key)
		}
	}
}

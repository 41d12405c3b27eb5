package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func boolPolicy(value, inherited bool) *types.BoolPolicy {
	return &types.BoolPolicy{InheritablePolicy: types.InheritablePolicy{Inherited: inherited}, Value: &value}
}

func TestEffectiveSettingPrefersTheOverride(t *testing.T) {
	defaults := &types.VMwareDVSPortSetting{
		DVPortSetting: types.DVPortSetting{Blocked: boolPolicy(true, false)},
		Vlan:          &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 7},
	}
	inherited := inheritedSetting(defaults)
	override := &types.VMwareDVSPortSetting{DVPortSetting: types.DVPortSetting{Blocked: boolPolicy(false, false)}}
	got := effectiveSetting(inherited, override)
	if isTrue(got.Blocked) || got.Blocked.Inherited {
		t.Errorf("blocked %+v", got.Blocked)
	}
	vlan := got.Vlan.(*types.VmwareDistributedVirtualSwitchVlanIdSpec)
	if vlan.VlanId != 7 || !vlan.Inherited {
		t.Errorf("VLAN %+v", vlan)
	}
	if !isTrue(inherited.Blocked) || defaults.Blocked.Inherited {
		t.Error("an input was changed")
	}
}

func TestMergeOverrideDropsReplacesAndKeeps(t *testing.T) {
	override := &types.VMwareDVSPortSetting{
		DVPortSetting: types.DVPortSetting{Blocked: boolPolicy(true, false)},
		Vlan:          &types.VmwareDistributedVirtualSwitchVlanIdSpec{VlanId: 7},
	}
	mergeOverride(override, &types.VMwareDVSPortSetting{
		DVPortSetting:       types.DVPortSetting{Blocked: boolPolicy(false, true)},
		UplinkTeamingPolicy: &types.VmwareUplinkPortTeamingPolicy{},
	})
	if override.Blocked != nil {
		t.Errorf("an inherited policy stays: %+v", override.Blocked)
	}
	if override.Vlan == nil || override.UplinkTeamingPolicy == nil {
		t.Errorf("override %+v", override)
	}
}

func TestMacManagementPolicyWinsOverTheOlderOne(t *testing.T) {
	forged, changes, promiscuous := securityOf(&types.VMwareDVSPortSetting{
		SecurityPolicy: &types.DVSSecurityPolicy{
			ForgedTransmits: boolPolicy(false, false), MacChanges: boolPolicy(true, false), AllowPromiscuous: boolPolicy(false, false),
		},
		MacManagementPolicy: &types.DVSMacManagementPolicy{ForgedTransmits: types.NewBool(true)},
	})
	if !forged || !changes || promiscuous {
		t.Errorf("forged %v changes %v promiscuous %v", forged, changes, promiscuous)
	}
}

package main

import (
	"fmt"

	"github.com/vmware/govmomi/vim25/types"
)

// Checks and completes the NICs of a VM's specification before stock sees it.

const (
	// firstNicKey is the device key of a VM's first NIC on vSphere.
	firstNicKey = 4000
	// firstNicUnit is the unit number of the first NIC on the PCI controller.
	firstNicUnit = 7
	// pciControllerKey is the device key of a VM's PCI controller.
	pciControllerKey = 100
)

// prepareNics refuses NICs that vCenter would refuse and numbers new ones as
// vCenter does. vm is the empty reference for a VM that is being created.
func (v *vcenter) prepareNics(vm ref, devices []types.BaseVirtualDevice, changes []types.BaseVirtualDeviceConfigSpec) types.BaseMethodFault {
	numbers := newNicNumbers(devices)
	wanted := map[string]int{}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, change := range changes {
		spec := change.GetVirtualDeviceConfigSpec()
		c, ok := spec.Device.(types.BaseVirtualEthernetCard)
		if !ok || spec.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		card := c.GetVirtualEthernetCard()
		if spec.Operation == types.VirtualDeviceConfigSpecOperationAdd {
			numbers.assign(card)
			if card.MacAddress == "" {
				card.MacAddress, card.AddressType = v.freeMAC(), string(types.VirtualEthernetCardMacTypeAssigned)
			}
		}
		var fault types.BaseMethodFault
		switch b := card.Backing.(type) {
		case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
			fault = v.checkPort(nicID{vm, card.Key}, &b.Port, wanted)
		case *types.VirtualEthernetCardNetworkBackingInfo:
			fault = v.checkNetwork(b.DeviceName)
		}
		if fault != nil {
			return fault
		}
	}
	return nil
}

// nicNumbers hands out device keys and unit numbers.
type nicNumbers struct{ used map[int32]bool }

func newNicNumbers(devices []types.BaseVirtualDevice) *nicNumbers {
	n := &nicNumbers{used: map[int32]bool{}}
	for _, d := range devices {
		n.used[d.GetVirtualDevice().Key] = true
	}
	return n
}

func (n *nicNumbers) assign(card *types.VirtualEthernetCard) {
	if card.Key < firstNicKey || n.used[card.Key] {
		card.Key = firstNicKey
		for n.used[card.Key] {
			card.Key++
		}
	}
	n.used[card.Key] = true
	index := card.Key - firstNicKey
	unit := firstNicUnit + index
	card.UnitNumber, card.ControllerKey = &unit, pciControllerKey
	if card.DeviceInfo == nil || card.DeviceInfo.GetDescription().Label == "" {
		card.DeviceInfo = &types.Description{Label: fmt.Sprintf("Network adapter %d", index+1)}
	}
}

// checkPort tells why a NIC can't have the distributed port it asks for; v.mu is held.
func (v *vcenter) checkPort(nic nicID, c *types.DistributedVirtualSwitchPortConnection, wanted map[string]int) types.BaseMethodFault {
	s := v.switchByUUID(c.SwitchUuid)
	if s == nil {
		return &types.NotFound{}
	}
	g := s.portgroups[c.PortgroupKey]
	if g == nil {
		return &types.InvalidArgument{InvalidProperty: "spec.deviceChange.device.backing.port.portgroupKey"}
	}
	if c.PortKey != "" {
		p := s.ports[c.PortKey]
		if p == nil || p.portgroup != g.key {
			return &types.InvalidArgument{InvalidProperty: "spec.deviceChange.device.backing.port.portKey"}
		}
		if p.nic != nil && *p.nic != nic {
			return portTaken(p.key)
		}
		return nil
	}
	if g.binding != earlyBinding || g.autoExpand {
		return nil
	}
	wanted[g.key]++
	available := 0
	for _, k := range g.ports {
		if p := s.ports[k]; p.nic == nil || *p.nic == nic {
			available++
		}
	}
	if available < wanted[g.key] {
		return noFreePort(g.name)
	}
	return nil
}

// checkNetwork refuses an unknown network of a standard switch, on which stock panics.
func (v *vcenter) checkNetwork(name string) types.BaseMethodFault {
	for _, e := range v.registry.All("Network") {
		if entityName(e) == name {
			return nil
		}
	}
	return &types.InvalidDeviceBacking{InvalidDeviceSpec: types.InvalidDeviceSpec{
		InvalidVmConfig: types.InvalidVmConfig{Property: "deviceChange.device.backing"},
	}}
}

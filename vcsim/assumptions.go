package main

import (
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/vmware/govmomi/vim25/types"
)

// This file holds what is assumed about a real vCenter and not documented or
// not yet checked against one. README.md lists each with its reason.

const (
	// autoExpandStep is how many ports a static portgroup with autoExpand gains when it is full.
	autoExpandStep = 8
	// firstPortVersion is the configVersion of a port that nobody has changed.
	firstPortVersion = 0
	// firstPortgroupVersion is the configVersion of a new portgroup.
	firstPortgroupVersion = "0"
	// uplinksPerHost is the number of uplink ports each host brings unless the switch names others.
	uplinksPerHost = 2
	// intranetOption is the advanced setting that lets vCenter refuse to move a VM
	// that is on a switch without physical NICs (VMware KB 1003832).
	intranetOption = "config.migrate.test.CompatibleNetworks.VMOnVirtualIntranet"
	// intranetsMattered is its default. On a real vCenter it is true and known to
	// matter for standard switches; for distributed ones nothing is documented.
	intranetsMattered = false
	// firstCookie is the first connection cookie minus one.
	firstCookie = 1_000_000
)

// overrideForbidden is the fault for a port setting that the portgroup's policy does not let ports override.
func overrideForbidden(property string) types.BaseMethodFault {
	return &types.InvalidArgument{InvalidProperty: "port.setting." + property}
}

// invalidVlan is the fault for a VLAN id or range outside 0..4094.
func invalidVlan(property string) types.BaseMethodFault {
	return &types.InvalidArgument{InvalidProperty: property}
}

// noFreePort is the fault for a NIC on a static portgroup that is full and may not grow.
func noFreePort(portgroup string) types.BaseMethodFault {
	return &types.ResourceInUse{Type: "DistributedVirtualPortgroup", Name: portgroup}
}

// portTaken is the fault for a NIC that asks for a port another NIC has. The
// type must be a real one: pyVmomi fails on others.
func portTaken(portKey string) types.BaseMethodFault {
	return &types.ResourceInUse{Type: "DistributedVirtualPort", Name: portKey}
}

// portgroupInUse is the fault for destroying a portgroup with a connected port.
func portgroupInUse(portKey string) types.BaseMethodFault {
	return &types.ResourceInUse{Type: "DistributedVirtualPort", Name: portKey}
}

// vcenterUUID renders a switch uuid as vCenter does: 16 bytes in hex, separated
// by spaces and in the middle by a dash.
func vcenterUUID(seed string) string {
	h := sha256.Sum256([]byte(seed))
	h[0] = 0x50
	return fmt.Sprintf("% x-% x", h[:8], h[8:16])
}

// nextVersion is the configVersion after a change.
func nextVersion(version string) string {
	n, err := strconv.Atoi(version)
	if err != nil {
		return "1"
	}
	return strconv.Itoa(n + 1)
}
